"""What a session costs with each package that hands out sessions, on SQLite and on PostgreSQL."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

from attrs import frozen
from sqlalchemy import create_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from benchmarks.setups import other_packages as peers
from benchmarks.setups.databases import disposing, factory_on, plain_sessions
from benchmarks.setups.other_packages import Usage
from benchmarks.setups.scopes import nothing, select
from benchmarks.setups.servers import LATENCIES, SOCKET, distances, places
from benchmarks.tool.figures import Question, Table, Unit, compare
from benchmarks.tool.harness import alternate, fastest, timed

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.setups.scopes import Operation, Work
    from benchmarks.tool.figures import Group

_PLAIN: Final = "sessionmaker"
_PRE_PING: Final = "sessionmaker, pool_pre_ping=True"
_SCOPED: Final = "scoped_session"
_OURS: Final = "SqlAlchemySessionFactory"
_UNIT: Final = Unit("µs per session", 1e6)
_NOTES: Final = (
    "Each package with its own defaults, on an engine that it makes itself; one client.",
    "A round takes the fastest of several samples.",
    "sqlalchemy-bind-manager is left out: it requires SQLAlchemy below 2.1.",
    "oslo.db: reader for a session, writer for a transaction; it pings at each checkout.",
    "fastapi-sqla: its sessions always end in a commit.",
    "Flask-SQLAlchemy: all in one application context; the session is removed each time.",
    "flask-sqlalchemy-lite: closes a session with its application context: one for each.",
    "On SQLite, only SqlAlchemySessionFactory sends a BEGIN, so that no update is lost.",
)


@frozen(kw_only=True)
class Plan:
    """How much is measured.

    Args:
        rounds: rounds of each group.
        passes: samples of each candidate in a round, of which the fastest is taken.
        idle: sessions in a sample, with no database work.
        busy: sessions in a sample, with one statement.
        slow: the same behind a network.
        latencies: seconds that a round trip takes, each in a group of its own.
    """

    rounds: int
    passes: int = 3
    idle: int = 40
    busy: int = 10
    slow: int = 3
    latencies: tuple[float, ...] = LATENCIES


FULL = Plan(rounds=15, passes=4)
QUICK = Plan(rounds=2, passes=1, idle=5, busy=2, slow=1)


def measure(plan: Plan) -> Table:
    """Measure sessions without work and with one statement."""
    with TemporaryDirectory() as directory, places(plan.latencies) as urls:
        groups = _on_sqlite(plan, Path(directory))
        for place, url in urls.items():
            text = url.render_as_string(hide_password=False)
            groups.append(_on_postgresql(plan, place, text))
        measured = distances(urls)
    absent = [f"{name} is left out: it is not installed." for name in peers.missing()]
    return Table(
        name="session_by_package",
        title="a session, by packages that hand them out",
        notes=(*_NOTES, *absent, measured),
        groups=tuple(groups),
        highlight=groups[-2].title,
    )


def _on_sqlite(plan: Plan, home: Path) -> list[Group]:
    def url(name: str) -> str:
        return f"sqlite:///{home / name.partition(',')[0]}.db"

    groups: list[Group] = []
    with ExitStack() as stack:
        usages = _usages(stack, url)
        cases: tuple[tuple[str, Work, int], ...] = (
            ("open + close, no database work", nothing, plan.idle),
            ("open + SELECT 1 + close, a SQLite file", select, plan.busy),
        )
        for title, work, number in cases:
            runs = {name: usage.opened(work) for name, usage in usages.items()}
            groups.append(_group(plan, title, runs, number))
        runs = {name: usage.begun(select) for name, usage in usages.items()}
        groups.append(_group(plan, "begin() scope, SELECT 1, a SQLite file", runs, plan.busy))
    return groups


def _on_postgresql(plan: Plan, place: str, url: str) -> Group:
    title = "begin() scope, SELECT 1, PostgreSQL, "
    with ExitStack() as stack:
        usages = _usages(stack, lambda _: url)
        runs = {name: usage.begun(select) for name, usage in usages.items()}
        if place == SOCKET:
            return _group(plan, title + place, runs, plan.busy)
        title += f"{place} round trip"
        return _group(plan, title, runs, plan.slow, Unit("ms per session", 1e3))


def _group(
    plan: Plan, title: str, runs: dict[str, Operation], number: int, unit: Unit = _UNIT
) -> Group:
    candidates = {name: timed(run, number) for name, run in runs.items()}
    samples = alternate(candidates, plan.rounds * plan.passes)
    return compare(Question(title=title, unit=unit), fastest(samples, plan.passes))


def _usages(stack: ExitStack, url: Callable[[str], str]) -> dict[str, Usage]:
    """Make every candidate ready, for the database that ``url`` gives by its name."""

    def sessions(name: str, *, pre_ping: bool = False) -> sessionmaker[Session]:
        engine = create_engine(url(name), pool_pre_ping=pre_ping)
        return plain_sessions(stack.enter_context(disposing(engine)))

    plain, asking = sessions(_PLAIN), sessions(_PRE_PING, pre_ping=True)
    scoped = scoped_session(sessions(_SCOPED))
    ours = stack.enter_context(factory_on(url(_OURS)))
    return {
        _PLAIN: Usage.by_blocks(plain, plain.begin),
        _PRE_PING: Usage.by_blocks(asking, asking.begin),
        _SCOPED: Usage.by_registry(scoped),
        _OURS: Usage.by_blocks(ours, ours.begin),
    } | {name: peers.make_ready(name, stack, url(name)) for name in peers.installed()}
