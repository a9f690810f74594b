"""The fair pool of an async engine: tasks wait, are cancelled, and leave nothing behind."""

from __future__ import annotations

import asyncio
import gc
import threading
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import ArgumentError, MissingGreenlet
from sqlalchemy.exc import TimeoutError as SqlAlchemyTimeoutError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.util.concurrency import greenlet_spawn

from sessionfactory.pool.fair import FairPool
from sessionfactory.pool.loop_bound import AsyncFairPool

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import PoolProxiedConnection

    from tests.support.sqlite_pools import Databases

    T = TypeVar("T")


def one_connection(databases: Databases, timeout: float | None = 3600) -> AsyncFairPool:
    """Return a pool of a single connection."""
    return AsyncFairPool(databases.connect, pool_size=1, max_overflow=0, timeout=timeout)


def counters(pool: FairPool) -> tuple[int, int, int, int]:
    """Return what is idle, out, over the size, and who waits."""
    return pool.checkedin(), pool.checkedout(), pool.overflow(), pool.waiting()


async def taken(pool: FairPool) -> PoolProxiedConnection:
    """Take a connection, in a greenlet, as SQLAlchemy does."""
    return await greenlet_spawn(pool.connect)


async def given_back(connection: PoolProxiedConnection) -> None:
    """Give a connection back, in a greenlet, as SQLAlchemy does."""
    await greenlet_spawn(connection.close)


async def until(condition: Callable[[], bool]) -> None:
    """Let the event loop run until something is so."""
    for _ in range(100_000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never came to be")


async def waiting(pool: FairPool, number: int) -> list[asyncio.Task[PoolProxiedConnection]]:
    """Have a number of tasks wait for a connection."""
    tasks: list[asyncio.Task[PoolProxiedConnection]] = []
    for _ in range(number):
        before = pool.waiting()
        tasks.append(asyncio.create_task(taken(pool)))
        await until(lambda before=before: pool.waiting() > before)  # type: ignore[misc]  # a default
    return tasks


def test_first_come_first_served(databases: Databases) -> None:
    """A connection goes to the tasks that wait in the order in which they came."""

    async def main() -> None:
        pool = one_connection(databases)
        held = await taken(pool)
        tasks = await waiting(pool, 8)
        for task in tasks:
            await given_back(held)
            held = await task
            assert [one.done() for one in tasks] == [
                tasks.index(one) <= tasks.index(task) for one in tasks
            ]
        await given_back(held)
        assert databases.opened == 1
        assert counters(pool) == (1, 0, 0, 0)

    asyncio.run(main())


def test_all_tasks_get_their_share(databases: Databases) -> None:
    """Of 100 tasks on 5 connections, each is served as often as any other."""

    async def main() -> None:
        pool = AsyncFairPool(databases.connect, pool_size=5, max_overflow=0, timeout=20)
        served = [0] * 100

        async def work(number: int) -> None:
            while sum(served) < 2000:
                connection = await taken(pool)
                await asyncio.sleep(0)
                await given_back(connection)
                served[number] += 1

        await asyncio.gather(*map(work, range(100)))
        assert max(served) - min(served) <= 1
        assert databases.most <= 5

    asyncio.run(main())


@pytest.mark.parametrize("timeout", [0, 1e-9, 0.01])
def test_timeout(databases: Databases, timeout: float) -> None:
    """Who waits in vain is told in QueuePool's words, and has left the line."""

    async def main() -> None:
        pool = one_connection(databases, timeout)
        held = await taken(pool)
        with pytest.raises(
            SqlAlchemyTimeoutError, match="AsyncFairPool limit of size 1 overflow 0"
        ):
            await taken(pool)
        assert counters(pool) == (0, 1, 0, 0)
        await given_back(held)
        await given_back(await taken(pool))
        assert counters(pool) == (1, 0, 0, 0)

    asyncio.run(main())


def test_cancelled_while_it_waits(databases: Databases) -> None:
    """A task that is cancelled leaves the line, and the next one is served."""

    async def main() -> None:
        pool = one_connection(databases)
        held = await taken(pool)
        first, second = await waiting(pool, 2)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert pool.waiting() == 1
        await given_back(held)
        await given_back(await second)
        assert counters(pool) == (1, 0, 0, 0)

    asyncio.run(main())


@pytest.mark.parametrize("others", [0, 1])
def test_cancelled_as_it_is_served(databases: Databases, others: int) -> None:
    """A connection that is given to a cancelled task is the next one's, or kept."""

    async def main() -> None:
        pool = one_connection(databases)
        held = await taken(pool)
        first, *rest = await waiting(pool, 1 + others)
        await given_back(held)
        first.cancel()  # it is served, and has not run since
        with pytest.raises(asyncio.CancelledError):
            await first
        for task in rest:
            await given_back(await task)
        assert counters(pool) == (1, 0, 0, 0)

    asyncio.run(main())


def test_cancelled_first_and_then_served(databases: Databases) -> None:
    """A connection that is given to a task whose cancellation is under way is the next one's."""

    async def main() -> None:
        pool = one_connection(databases)
        held = await taken(pool)
        first, second = await waiting(pool, 2)
        first.cancel()
        await given_back(held)
        with pytest.raises(asyncio.CancelledError):
            await first
        await given_back(await second)
        assert counters(pool) == (1, 0, 0, 0)

    asyncio.run(main())


def test_cancelled_after_any_number_of_steps(databases: Databases) -> None:
    """Whenever a task is cancelled, the connection and its place are there afterwards."""

    async def run(pool: AsyncFairPool, steps: int) -> bool:
        async def use() -> None:
            connection = await taken(pool)
            try:
                await asyncio.sleep(0)
            finally:
                await given_back(connection)

        tasks = [asyncio.create_task(use()) for _ in range(3)]
        for _ in range(steps):
            await asyncio.sleep(0)
        late = not tasks[1].done()
        tasks[1].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert counters(pool) == (1, 0, 0, 0)
        return late

    async def main() -> None:
        pool = one_connection(databases)
        steps = 0
        while await run(pool, steps):
            steps += 1
        assert steps > 3

    asyncio.run(main())


def test_returned_in_another_thread(databases: Databases) -> None:
    """Garbage collection in any thread wakes the task that waits for the connection's place."""

    async def main() -> None:
        pool = one_connection(databases)
        held = [await taken(pool)]
        (task,) = await waiting(pool, 1)
        thread = threading.Thread(target=held.clear)
        with pytest.warns(match="The garbage collector is trying to clean up"):
            thread.start()
            await given_back(await task)
            thread.join()
        assert counters(pool) == (1, 0, 0, 0)

    asyncio.run(main())


def test_dropped_connection_makes_room(databases: Databases) -> None:
    """The permit of a dropped connection goes to the longest waiter."""

    async def main() -> None:
        pool = one_connection(databases)
        held = [await taken(pool)]
        (task,) = await waiting(pool, 1)
        with pytest.warns(match="The garbage collector is trying to clean up"):
            held.clear()
            gc.collect()
        await given_back(await task)
        assert counters(pool) == (1, 0, 0, 0)
        assert databases.opened == 2

    asyncio.run(main())


def test_connect_fails_while_others_wait(databases: Databases) -> None:
    """When a connection cannot be opened, the longest waiter may try."""
    errors = [None, OSError("it is down"), None]

    def creator() -> DBAPIConnection:
        databases.error = errors.pop(0)
        return databases.connect()

    async def main() -> None:
        pool = AsyncFairPool(creator, pool_size=1, max_overflow=0)
        held = await taken(pool)
        first, second = await waiting(pool, 2)
        await greenlet_spawn(held.invalidate)
        with pytest.raises(OSError, match="it is down"):
            await first
        await given_back(await second)
        assert counters(pool) == (1, 0, 0, 0)

    asyncio.run(main())


def test_outside_a_greenlet(databases: Databases) -> None:
    """Who would have to wait where nothing can be awaited is told so, and leaves the line."""

    async def main() -> None:
        pool = one_connection(databases)
        held = await taken(pool)
        with pytest.raises(MissingGreenlet):
            pool.connect()
        assert pool.waiting() == 0
        await given_back(held)

    asyncio.run(main())


def test_turn_away(databases: Databases) -> None:
    """No waiter remains at a pool that is closed."""

    async def main() -> None:
        pool = one_connection(databases)
        held = await taken(pool)
        tasks = await waiting(pool, 3)
        pool.turn_away()
        for task in tasks:
            with pytest.raises(SqlAlchemyTimeoutError):
                await task
        await given_back(held)

    asyncio.run(main())


def test_next_event_loop(databases: Databases) -> None:
    """A pool that takes the place of one whose loop is gone is empty, and nothing was closed."""
    pool = one_connection(databases)

    async def leave_some_behind() -> PoolProxiedConnection:
        held = await taken(pool)
        await waiting(pool, 2)
        return held

    async def go_on(fresh: FairPool) -> None:
        await given_back(await taken(fresh))

    held = asyncio.run(leave_some_behind())  # which cancels the tasks that wait
    assert counters(pool) == (0, 1, 0, 0)
    pool.retire()
    fresh = pool.recreate()
    assert len(databases.open) == 1
    asyncio.run(go_on(fresh))
    assert len(databases.open) == 2
    asyncio.run(given_back(held))
    assert len(databases.open) == 1
    assert type(fresh) is AsyncFairPool


def test_create_async_engine(tmp_path: Path) -> None:
    """``create_async_engine`` takes it, ``create_engine`` does not; and the other way round."""

    async def main() -> None:
        engine = create_async_engine(
            f"sqlite+aiosqlite:///{tmp_path / 'app.db'}",
            poolclass=AsyncFairPool,
            pool_size=2,
            max_overflow=0,
            pool_timeout=10,
            recycle_jitter=0,
        )

        async def ask(number: int) -> int:
            async with engine.connect() as connection:
                return int(await connection.scalar(text(f"SELECT {number}")) or 0)

        assert await asyncio.gather(*map(ask, range(10))) == list(range(10))
        assert engine.pool.status().startswith("Pool size: 2  Connections in pool: 2")
        await engine.dispose()

    asyncio.run(main())
    with pytest.raises(ArgumentError, match="AsyncFairPool cannot be used with non-asyncio"):
        create_engine("sqlite:///x.db", poolclass=AsyncFairPool)
    with pytest.raises(ArgumentError, match="FairPool cannot be used with asyncio"):
        create_async_engine("sqlite+aiosqlite:///x.db", poolclass=FairPool)


def test_gathered(databases: Databases) -> None:
    """Many tasks at once open no more connections than there may be."""

    async def use(pool: FairPool, number: int) -> int:
        connection = await taken(pool)
        await asyncio.sleep(0)
        await given_back(connection)
        return number

    async def main() -> None:
        pool = AsyncFairPool(databases.connect, pool_size=2, max_overflow=1)
        assert await asyncio.gather(*map(partial(use, pool), range(100))) == list(range(100))
        assert databases.most <= 3
        assert counters(pool) == (2, 0, 0, 0)

    asyncio.run(main())
