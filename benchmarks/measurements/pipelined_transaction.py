"""What fewer round trips are worth: transactions of one statement, near and far from the server."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

from attrs import frozen
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, sessionmaker

from benchmarks.measurements.one_statement_transaction import timed
from benchmarks.setups.databases import disposing
from benchmarks.setups.plain_and_ours import OURS, PLAIN, PRE_PING
from benchmarks.setups.servers import LATENCIES, SOCKET, distances, places
from benchmarks.tool.figures import Count, Group, Question, Table, Target, Unit, compare
from benchmarks.tool.harness import alternate, fastest
from sessionfactory import (
    AsyncSqlAlchemySessionFactory,
    DatabaseSettings,
    SqlAlchemySessionFactory,
    with_options,
)
from sessionfactory.testing import FaultProxy

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

    from sqlalchemy import URL

    from sessionfactory import AsyncSessionFactory, SessionFactory

PIPELINED: Final = "SqlAlchemySessionFactory, pipeline=True"
_TARGETS: Final = {
    ("write", "0.5 ms"): Target(">=", 1.5),
    ("write", "2 ms"): Target(">=", 1.85),
    ("read", "0.5 ms"): Target(">=", 2.2),
    ("read", "2 ms"): Target(">=", 3.2),
}
_INSERT: Final = text("INSERT INTO trip VALUES (:number)")
_SELECT: Final = text("SELECT CAST(:number AS int)")
_FAR: Final = 0.02
"""Seconds of a round trip, long enough for an end to be counted only if somebody waits for it."""
_NOTES = (
    "One client, one scope after the other, each of one statement with a parameter.",
    "A write is begin() and an INSERT; a read is a reader's session, against one of sessionmaker.",
    "Awaited round trips are those that FaultProxy has counted when the scope ends.",
)


@frozen(kw_only=True)
class Plan:
    """How much is measured; see ``one_statement``."""

    rounds: int
    passes: int = 1
    window: float
    latencies: tuple[float, ...] = LATENCIES


FULL = Plan(rounds=15, passes=5, window=0.02)
QUICK = Plan(rounds=2, window=0.01)


def measure(plan: Plan) -> Table:
    """Measure writes and reads in both halves, and count."""
    groups: list[Group] = []
    with places(plan.latencies) as urls:
        notes = (*_NOTES, distances(urls))
        _prepare(urls[SOCKET])
        for place, url in urls.items():
            for is_async in (False, True):
                groups += [_group(plan, what, place, url, is_async) for what in ("write", "read")]
        groups.append(_counted(urls[SOCKET]))
    title = "fewer round trips, on psycopg"
    return Table(name="pipelined_transaction", title=title, notes=notes, groups=tuple(groups))


def _prepare(url: URL) -> None:
    with disposing(create_engine(url)) as engine, engine.begin() as connection:
        connection.exec_driver_sql("CREATE UNLOGGED TABLE trip (number int)")


def _group(plan: Plan, what: str, place: str, url: URL, is_async: bool) -> Group:  # noqa: FBT001
    target = _TARGETS.get((what, place))
    half = "async psycopg" if is_async else "psycopg"
    question = Question(
        title=f"{what}, {half}, {place if place == SOCKET else f'{place} round trip'}",
        unit=Unit("scopes a second", better="more"),
        targets={} if target is None else {PIPELINED: target},
        also=[(OURS, PLAIN), (PIPELINED, OURS)],
    )
    with (_async_rivals if is_async else _rivals)(url, what) as rivals:
        return _compared(plan, question, rivals)


def _compared(plan: Plan, question: Question, rivals: Mapping[str, Callable[[int], None]]) -> Group:
    candidates = {name: partial(timed, run, plan.window) for name, run in rivals.items()}
    taken = fastest(alternate(candidates, plan.rounds * plan.passes), plan.passes)
    rates = {name: [1 / seconds for seconds in samples] for name, samples in taken.items()}
    return compare(question, rates)


@contextmanager
def _rivals(url: URL, what: str) -> Generator[dict[str, Callable[[int], None]]]:
    with ExitStack() as stack:

        def plain(*, pre_ping: bool) -> SessionFactory:
            engine = stack.enter_context(disposing(create_engine(url, pool_pre_ping=pre_ping)))
            return sessionmaker(engine, expire_on_commit=False)

        def ours(*, pipeline: bool) -> SessionFactory:
            settings = DatabaseSettings(url, pipeline=pipeline)
            factory = stack.enter_context(SqlAlchemySessionFactory(settings))
            return factory.reader if what == "read" else factory

        sessions = {
            PRE_PING: plain(pre_ping=True),
            PLAIN: plain(pre_ping=False),
            OURS: ours(pipeline=False),
            PIPELINED: ours(pipeline=True),
        }
        yield {name: partial(_work, found, what) for name, found in sessions.items()}


def _work(sessions: SessionFactory, what: str, number: int) -> None:
    for _ in range(number):
        if what == "read":
            with sessions() as session:
                session.execute(_SELECT, {"number": 1}).scalar_one()
        else:
            with sessions.begin() as session:
                session.execute(_INSERT, {"number": 1})


@contextmanager
def _async_rivals(url: URL, what: str) -> Generator[dict[str, Callable[[int], None]]]:
    with ExitStack() as stack:
        runner = stack.enter_context(asyncio.Runner())

        def plain(*, pre_ping: bool) -> AsyncSessionFactory:
            engine = create_async_engine(url, pool_pre_ping=pre_ping)
            stack.callback(lambda: runner.run(engine.dispose()))
            return async_sessionmaker(engine, expire_on_commit=False)

        def ours(*, pipeline: bool) -> AsyncSessionFactory:
            factory = AsyncSqlAlchemySessionFactory(DatabaseSettings(url, pipeline=pipeline))
            stack.callback(lambda: runner.run(_closed(factory)))
            return factory.reader if what == "read" else factory

        sessions = {
            PRE_PING: plain(pre_ping=True),
            PLAIN: plain(pre_ping=False),
            OURS: ours(pipeline=False),
            PIPELINED: ours(pipeline=True),
        }

        def working(found: AsyncSessionFactory) -> Callable[[int], None]:
            return lambda number: runner.run(_work_async(found, what, number))

        yield {name: working(found) for name, found in sessions.items()}


async def _work_async(sessions: AsyncSessionFactory[AsyncSession], what: str, number: int) -> None:
    for _ in range(number):
        if what == "read":
            async with sessions() as session:
                (await session.execute(_SELECT, {"number": 1})).scalar_one()
        else:
            async with sessions.begin() as session:
                await session.execute(_INSERT, {"number": 1})


async def _closed(factory: AsyncSqlAlchemySessionFactory) -> None:
    await factory.aclose()


def _counted(url: URL) -> Group:
    """Count the round trips that somebody waits for."""
    unit = Unit("round trips of a scope")
    with (
        FaultProxy(url, latency=_FAR) as proxy,
        SqlAlchemySessionFactory(DatabaseSettings(proxy.url, pipeline=True)) as plain,
    ):
        tenant = with_options(plain, local={"app.tenant": "seven"})

        def count(name: str, most: int, run: Callable[[], None]) -> Count:
            run()
            with proxy.counting() as counted:
                run()
                awaited = counted.round_trips
            return Count(name=name, value=awaited, target=Target("<=", most))

        write = partial(_work, what="write", number=1)
        counts = (
            count("begin(), one statement, commit", 2, lambda: write(plain)),
            count("the same with a tenant's setting", 2, lambda: write(tenant)),
            count("a reader's session of one statement", 1, lambda: _read_once(plain.reader)),
        )
    return Group(title="awaited round trips", unit=unit, rounds=1, rows=(), counts=counts)


def _read_once(sessions: SessionFactory[Session]) -> None:
    _work(sessions, "read", 1)
