"""Who waits, and how long, where there are more workers than connections."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final, LiteralString, cast

from attrs import frozen
from psycopg_pool import AsyncConnectionPool, ConnectionPool
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import create_async_engine

from benchmarks.setups.databases import disposing
from benchmarks.setups.servers import socket_only
from benchmarks.setups.workers_on_a_pool import between_tasks, between_threads
from benchmarks.tool.figures import Count, Question, Table, Target, Unit, compare
from benchmarks.tool.harness import alternate
from sessionfactory import (
    AsyncSqlAlchemySessionFactory,
    DatabaseSettings,
    PoolSettings,
    SqlAlchemySessionFactory,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence

    from psycopg import AsyncConnection, Connection
    from sqlalchemy import URL, Engine
    from sqlalchemy.ext.asyncio import AsyncEngine

    from benchmarks.setups.workers_on_a_pool import AsyncLease, Contest, Lease, Take, TakeAsync
    from benchmarks.tool.figures import Group

_QUEUE: Final = "QueuePool"
_OURS: Final = "SqlAlchemySessionFactory"
_PSYCOPG: Final = "psycopg_pool"
_POOL: Final = 5
_PATIENCE: Final = 2.0
_NOTES = (
    "Workers take a connection, run a statement of 1 ms, commit, give it back, and so on.",
    f"Pools of {_POOL} without overflow, {_PATIENCE:g} s of patience; psycopg on a Unix socket.",
    "longest wait: of all workers in a round; who got none in time has waited too.",
    "fewest / most: connections of the worker that had fewest, divided by those of who had most.",
)


@frozen(kw_only=True)
class Plan:
    """How much is measured.

    Args:
        rounds: contests for each pool.
        window: seconds of each; above the pools' patience, or nobody runs out of it.
        hold: the statement that keeps each connection busy.
        threads: how many compete, in contests of their own.
        tasks: the same, as tasks of one event loop.
    """

    rounds: int
    window: float
    hold: LiteralString = "SELECT pg_sleep(0.001)"
    threads: Sequence[int] = (8, 32)
    tasks: Sequence[int] = (100,)


FULL = Plan(rounds=5, window=3.0)
QUICK = Plan(rounds=2, window=0.1)


def measure(plan: Plan) -> Table:
    """Let threads compete, then tasks."""
    groups: list[Group] = []
    with socket_only() as url:
        with _pools(url) as pools:
            for number in plan.threads:
                contests = alternate(
                    {
                        name: partial(between_threads, take, number, plan.hold, plan.window)
                        for name, take in pools.items()
                    },
                    plan.rounds,
                )
                groups += _groups(f"{number} threads", contests)
        with asyncio.Runner() as runner, _async_pools(url, runner) as async_pools:
            for number in plan.tasks:

                def compete(take: TakeAsync, number: int = number) -> Contest:
                    return runner.run(between_tasks(take, number, plan.hold, plan.window))

                contests = alternate(
                    {name: partial(compete, take) for name, take in async_pools.items()},
                    plan.rounds,
                )
                groups += _groups(f"{number} tasks", contests)
    title = f"more workers than the {_POOL} connections of a pool"
    return Table(name="pool_contention", title=title, notes=_NOTES, groups=tuple(groups))


def _groups(who: str, contests: Mapping[str, Sequence[Contest]]) -> list[Group]:
    def samples(look: Callable[[Contest], float], *, first: str) -> dict[str, list[float]]:
        names = [first, *(name for name in contests if name != first)]
        return {name: [look(contest) for contest in contests[name]] for name in names}

    timeouts = [
        Count(
            name=f"{name}: timeouts",
            value=sum(contest.timeouts for contest in held),
            target=Target("<=", 0) if name == _OURS else None,
        )
        for name, held in contests.items()
    ]
    rates = Question(
        title=f"{who}: throughput",
        unit=Unit("connections a second", better="more"),
        targets={_OURS: Target(">=", 0.97)},
    )
    waits = Question(
        title=f"{who}: longest wait",
        unit=Unit("ms", 1e3),
        targets={_OURS: Target("<=", 1.2)},
    )
    shares = Question(
        title=f"{who}: fewest / most",
        unit=Unit("of one", better="more"),
        levels={_OURS: Target(">=", 0.95)},
    )
    return [
        compare(rates, samples(lambda contest: contest.rate, first=_QUEUE)),
        compare(waits, samples(lambda contest: contest.longest, first=_PSYCOPG), timeouts),
        compare(shares, samples(lambda contest: contest.evenness, first=_PSYCOPG)),
    ]


def _settings(url: URL) -> DatabaseSettings:
    return DatabaseSettings(url, pool=PoolSettings(size=_POOL, max_overflow=0, timeout=_PATIENCE))


_OPTIONS: Final[dict[str, Any]] = {
    "pool_size": _POOL,
    "max_overflow": 0,
    "pool_timeout": _PATIENCE,
}
_THEIR_OPTIONS: Final[dict[str, Any]] = {
    "min_size": _POOL,
    "max_size": _POOL,
    "timeout": _PATIENCE,
}


def _for_libpq(url: URL) -> str:
    return url.set(drivername="postgresql").render_as_string(hide_password=False)


@contextmanager
def _pools(url: URL) -> Generator[dict[str, Take]]:
    with (
        disposing(create_engine(url, **_OPTIONS)) as plain,
        SqlAlchemySessionFactory(_settings(url)) as ours,
        ConnectionPool(_for_libpq(url), open=True, **_THEIR_OPTIONS) as theirs,
    ):

        def take_theirs() -> Lease:
            connection = theirs.getconn()
            return connection, partial(theirs.putconn, connection)

        yield {_QUEUE: _taking(plain), _OURS: _taking(ours.engine), _PSYCOPG: take_theirs}


def _taking(engine: Engine) -> Take:
    def take() -> Lease:
        lease = engine.raw_connection()
        return cast("Connection[Any]", lease.driver_connection), lease.close

    return take


@contextmanager
def _async_pools(url: URL, runner: asyncio.Runner) -> Generator[dict[str, TakeAsync]]:
    with ExitStack() as stack:

        def last(close: Callable[[], Awaitable[object]]) -> None:
            async def closing() -> None:
                await close()

            stack.callback(lambda: runner.run(closing()))

        plain = create_async_engine(url, **_OPTIONS)
        last(plain.dispose)
        ours = AsyncSqlAlchemySessionFactory(_settings(url))
        last(ours.aclose)
        theirs = AsyncConnectionPool(_for_libpq(url), open=False, **_THEIR_OPTIONS)
        runner.run(theirs.open())
        last(theirs.close)

        async def take_theirs() -> AsyncLease:
            connection = await theirs.getconn()
            return connection, partial(theirs.putconn, connection)

        yield {
            _QUEUE: _taking_async(plain),
            _OURS: _taking_async(ours.engine),
            _PSYCOPG: take_theirs,
        }


def _taking_async(engine: AsyncEngine) -> TakeAsync:
    async def take() -> AsyncLease:
        lease = await engine.connect()
        raw = (await lease.get_raw_connection()).driver_connection
        return cast("AsyncConnection[Any]", raw), lease.close

    return take
