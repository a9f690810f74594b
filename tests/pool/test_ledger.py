"""The books of a pool are true."""

from __future__ import annotations

import asyncio
import gc
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DatabaseError

from sessionfactory import (
    DatabaseSettings,
    PoolExhaustedError,
    PoolSettings,
    SqlAlchemySessionFactory,
)

if TYPE_CHECKING:
    from collections.abc import Generator


@pytest.fixture
def small(url: str) -> Generator[SqlAlchemySessionFactory]:
    """A factory with one connection and one more in a rush."""
    pool = PoolSettings(size=1, max_overflow=1, timeout=0.01)
    with SqlAlchemySessionFactory(DatabaseSettings(url, pool=pool), name="small") as made:
        yield made


def test_counts(small: SqlAlchemySessionFactory) -> None:
    """Connections are counted while they are out, idle, and over the size."""
    assert small.status().size == 0
    with small() as one, small() as two:
        one.execute(text("SELECT 1"))
        two.execute(text("SELECT 1"))
        status = small.status()
    assert (status.limit, status.size, status.in_use, status.idle) == (2, 2, 2, 0)
    assert (status.overflow, status.waiting) == (1, 0)
    status = small.status()
    assert (status.size, status.in_use, status.idle, status.overflow) == (1, 0, 1, 0)
    small.engine.dispose()
    assert small.status().size == 0


def test_holders_longest_first(small: SqlAlchemySessionFactory) -> None:
    """A holder has the user's own line, its thread, and how long it has held."""
    with small() as one, small() as two:
        one.execute(text("SELECT 1"))
        two.execute(text("SELECT 2"))
        first, second = small.status().holders
    assert first.where.startswith(f"{__file__}:")
    assert first.where.endswith(" in test_holders_longest_first")
    assert first.owner == "thread MainThread"
    assert first.held >= second.held >= 0


def test_holder_in_a_task(small: SqlAlchemySessionFactory) -> None:
    """In a coroutine, the holder is named by its task."""

    async def work() -> str:
        with small() as session:
            session.execute(text("SELECT 1"))
            return small.status().holders[0].owner

    async def main() -> str:
        return await asyncio.create_task(work(), name="importer")

    assert asyncio.run(main()) == "task importer"


def test_exhausted(small: SqlAlchemySessionFactory) -> None:
    """A dry pool raises an error that lists the holders, and that counted the caller meanwhile."""
    with small() as one, small() as two, small() as three:
        one.execute(text("SELECT 1"))
        two.execute(text("SELECT 1"))
        with pytest.raises(PoolExhaustedError) as caught, ThreadPoolExecutor(1) as threads:
            threads.submit(three.execute, text("SELECT 1")).result()
    lines = str(caught.value).splitlines()
    assert lines[0] == (
        "No connection of the database 'small' came free within 0.01 s: all 2 are in use."
        " Close sessions sooner, or raise pool.size. In use by:"
    )
    assert len(lines) == 3
    assert all("in test_exhausted, thread MainThread, for 0." in line for line in lines[1:])
    assert len(caught.value.holders) == 2
    assert small.status().waiting == 0


def test_waiting_is_counted(url: str) -> None:
    """Who waits for a connection is counted until it has one."""
    pool = PoolSettings(size=1, max_overflow=0, timeout=None)
    with SqlAlchemySessionFactory(DatabaseSettings(url, pool=pool)) as factory:

        def wait() -> None:
            with factory() as session:
                session.execute(text("SELECT 1"))

        with factory() as session:
            session.execute(text("SELECT 1"))
            waiter = threading.Thread(target=wait)
            waiter.start()
            while factory.status().waiting == 0:
                pass
        waiter.join()
        assert factory.status().waiting == 0


def test_detached_and_invalidated_connections_leave_the_books(
    small: SqlAlchemySessionFactory, caplog: pytest.LogCaptureFixture
) -> None:
    """A connection that was detached or invalidated is no longer the pool's, without a word."""
    with small.engine.connect() as connection:
        connection.detach()
        assert (small.status().size, small.status().in_use) == (0, 0)
    with small.engine.connect() as connection:
        connection.invalidate()
        assert (small.status().size, small.status().in_use) == (0, 0)
    assert small.status().size == 0
    assert caplog.records == []


def test_dropped_session_gives_its_connection_back(small: SqlAlchemySessionFactory) -> None:
    """A session that is garbage-collected leaves no entry behind."""
    session = small()
    session.execute(text("SELECT 1"))
    del session
    gc.collect()
    assert small.status().in_use == 0


def test_failed_connect_leaves_no_entry(small: SqlAlchemySessionFactory) -> None:
    """A connection whose set-up failed is not counted."""
    path = small.engine.url.database
    assert path
    with open(path, "w", encoding="utf-8") as file:  # noqa: PTH123
        file.write("no database " * 1000)
    with small() as session, pytest.raises(DatabaseError, match="not a database"):
        session.execute(text("SELECT 1"))
    assert small.status().size == 0
    assert small.status().holders == ()
