"""What a session costs: opened and closed, or as one transaction, idle and with ``SELECT 1``."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from attrs import frozen
from sqlalchemy.orm import Session, scoped_session

from benchmarks.setups.databases import WAL, our_factory, plain_engine, plain_sessions
from benchmarks.setups.scopes import begun_by_registry, nothing, opened_by_registry, scope, select
from benchmarks.tool.figures import Question, Table, Target, Unit, compare
from benchmarks.tool.harness import alternate, fastest, timed

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from benchmarks.setups.scopes import Operation, Work
    from benchmarks.tool.figures import Group
    from sessionfactory import SessionFactory

_OURS = "SqlAlchemySessionFactory"
_PLAIN = "sessionmaker"
_ON_OURS = "sessionmaker on our engine"
_RECIPE = "sessionmaker, BEGIN recipe"
_UNIT = Unit("µs per session", 1e6)
_NOTES = (
    "All sessions have autoflush=True and expire_on_commit=False.",
    "A round takes the fastest of several samples, which are taken in turn like all others.",
    "sessionmaker, Session(engine) and scoped_session are on SQLAlchemy's default engine.",
    "There SQLite's driver sends no BEGIN before a SELECT, and so nothing to end it: less work.",
    f"{_RECIPE}: does with SQLAlchemy's documented events what our engine does by itself.",
    f"{_ON_OURS}: what the factory costs, without its engine.",
)


@frozen(kw_only=True)
class Plan:
    """How much is measured.

    Args:
        rounds: rounds of each group.
        passes: samples of each candidate in a round, of which the fastest is taken.
        idle: sessions in a sample, with no database work.
        busy: sessions in a sample, with ``SELECT 1``.
    """

    rounds: int
    passes: int = 5
    idle: int
    busy: int


FULL = Plan(rounds=41, passes=4, idle=200, busy=15)
QUICK = Plan(rounds=5, idle=50, busy=5)


def measure(plan: Plan) -> Table:
    """Measure with no database work, then with ``SELECT 1`` in memory and in a file."""
    groups: list[Group] = []
    with TemporaryDirectory() as directory:
        groups += _idle(plan)
        groups += _busy(plan, "memory", None)
        groups += _busy(plan, "a file", Path(directory))
    title = "a session, opened and closed, and one transaction"
    return Table(name="session_open_close", title=title, notes=_NOTES, groups=tuple(groups))


def _idle(plan: Plan) -> list[Group]:
    with plain_engine() as engine, our_factory() as factory:
        plain, scoped = plain_sessions(engine), scoped_session(plain_sessions(engine))
        opened = _opened(nothing, engine, scoped, {_PLAIN: plain, _OURS: factory})
        begun = _begun(nothing, engine, scoped, {_PLAIN: plain, _OURS: factory})
        ours = {_OURS: Target("<=", 0.97)}
        opening = Question(title="open + close, no database work", unit=_UNIT, targets=ours)
        ours = {_OURS: Target("<=", 0.95)}
        beginning = Question(title="begin() scope, no database work", unit=_UNIT, targets=ours)
        return [
            _group(opening, opened, plan, plan.idle),
            _group(beginning, begun, plan, plan.idle),
        ]


def _busy(plan: Plan, place: str, directory: Path | None) -> list[Group]:
    def file(name: str) -> Path | None:
        return None if directory is None else directory / name

    with ExitStack() as stack:
        engine = stack.enter_context(plain_engine(file("plain.db")))
        factory = stack.enter_context(our_factory(file("ours.db")))
        pragmas = () if directory is None else WAL
        deferred, immediate = (
            plain_sessions(
                stack.enter_context(plain_engine(file("recipe.db"), pragmas=pragmas, begin=begin))
            )
            for begin in ("BEGIN DEFERRED", "BEGIN IMMEDIATE")
        )
        with factory() as session:
            reading = session.get_bind().engine  # the view that our sessions are bound to
        plain, scoped = plain_sessions(engine), scoped_session(plain_sessions(engine))
        common: dict[str, SessionFactory] = {_PLAIN: plain, _OURS: factory}
        opened = common | {_ON_OURS: plain_sessions(reading), _RECIPE: deferred}
        begun = common | {_ON_OURS: plain_sessions(factory.engine), _RECIPE: immediate}
        also = [(_OURS, _ON_OURS), (_OURS, _RECIPE)]
        opening = Question(title=f"open + SELECT 1 + close, {place}", unit=_UNIT, also=also)
        beginning = Question(title=f"begin() scope with SELECT 1, {place}", unit=_UNIT, also=also)
        opening_runs = _opened(select, engine, scoped, opened)
        beginning_runs = _begun(select, engine, scoped, begun)
        return [
            _group(opening, opening_runs, plan, plan.busy),
            _group(beginning, beginning_runs, plan, plan.busy),
        ]


def _group(question: Question, operations: dict[str, Operation], plan: Plan, number: int) -> Group:
    candidates = {name: timed(operation, number) for name, operation in operations.items()}
    samples = alternate(candidates, plan.rounds * plan.passes)
    return compare(question, fastest(samples, plan.passes))


def _opened(
    work: Work,
    engine: Engine,
    scoped: scoped_session[Session],
    factories: dict[str, SessionFactory],
) -> dict[str, Operation]:
    """Return what opens and closes a session, by each candidate's name."""

    def by_class() -> Session:
        return Session(engine, autoflush=True, expire_on_commit=False)

    runs = {name: scope(sessions, work) for name, sessions in factories.items()}
    return runs | {
        "Session(engine)": scope(by_class, work),
        "scoped_session": opened_by_registry(scoped, work),
    }


def _begun(
    work: Work,
    engine: Engine,
    scoped: scoped_session[Session],
    factories: dict[str, SessionFactory],
) -> dict[str, Operation]:
    """Return what runs one transaction in a session of its own, by each candidate's name."""

    def by_class() -> None:
        with (
            Session(engine, autoflush=True, expire_on_commit=False) as session,
            session.begin(),
        ):
            work(session)

    runs = {name: scope(sessions.begin, work) for name, sessions in factories.items()}
    return runs | {"Session(engine)": by_class, "scoped_session": begun_by_registry(scoped, work)}
