"""``close`` against a holder who is inside the driver's C code, which must keep its connection.

psycopg does not notice that it was closed: the process would die, once in some 60 storms. Nor does
sqlite3: it would die in every other of the tests below.
"""

from __future__ import annotations

import asyncio
import socket
import sqlite3
import threading
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import attrs
import psycopg
import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError

from sessionfactory import (
    AsyncSqlAlchemySessionFactory,
    ClosedError,
    DatabaseSettings,
    SqlAlchemySessionFactory,
)
from sessionfactory.drivers import connections
from sessionfactory.testing import FaultProxy
from tests.support.sqlite_pools import Caller, until

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy.engine.interfaces import DBAPIConnection

    from sessionfactory.testing import PostgresServer

_PID = text("SELECT pg_backend_pid()")
_INSERT = text("INSERT INTO t VALUES (1)")


def is_gone(server: PostgresServer, pid: object) -> bool:
    return server.execute(f"SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}") == "0"


@pytest.fixture
def settings(postgres_server: PostgresServer) -> DatabaseSettings:
    return DatabaseSettings(postgres_server.url_for("psycopg"))


def test_a_thread_inside(settings: DatabaseSettings, postgres_server: PostgresServer) -> None:
    """It keeps its connection, which the server ends, and learns that the factory was closed."""
    factory = SqlAlchemySessionFactory(settings)
    with factory() as session:
        driver: Any = session.connection().connection.driver_connection
        pid = session.scalar(_PID)
        with driver.lock:  # as cursors have it, while they wait for an answer
            Caller(partial(factory.close, timeout=0)).join()
            assert not driver.closed
            until(lambda: is_gone(postgres_server, pid))
        with pytest.raises(ClosedError):
            session.scalar(_PID)
    with pytest.raises(psycopg.OperationalError):
        driver.execute("SELECT 1")
    driver.close()


def test_nobody_inside(settings: DatabaseSettings) -> None:
    """A connection whose holder does something else is closed, and its pool's listeners told."""
    factory = SqlAlchemySessionFactory(settings)
    told: list[object] = []

    def note(connection: object, *_: object) -> None:
        told.append(connection)

    for name in ("invalidate", "close"):
        event.listen(factory.engine.pool, name, note)
    with factory() as session:
        driver: Any = session.connection().connection.driver_connection
        Caller(partial(factory.close, timeout=0)).join()
        assert driver.closed
        assert told == [driver, driver]


class Writers:
    """A file of SQLite, and threads that write to it by one factory, one after the other."""

    def __init__(self, file: Path) -> None:
        self.stranger: sqlite3.Connection = sqlite3.connect(file, isolation_level=None)
        self.stranger.execute("CREATE TABLE t (a INTEGER)")
        self.factory = SqlAlchemySessionFactory(DatabaseSettings(f"sqlite:///{file}"))
        with self.factory() as session:
            session.execute(text("SELECT 1"))  # the file is set up, which needs it to be free
        self.writes, self.go_on = threading.Event(), threading.Event()
        self.callers: list[Caller] = []

    def begin(self) -> None:
        """Have one more thread begin a transaction."""
        self.callers.append(Caller(self._write))
        until(lambda: self.factory.status().in_use == len(self.callers))

    def _write(self) -> None:
        with self.factory.begin() as session:
            session.execute(_INSERT)
            self.writes.set()
            self.go_on.wait(10)

    def close(self) -> None:
        """Close the factory; check that all got an error, and that the file is free."""
        assert len(self.factory.close(timeout=0)) == len(self.callers)
        self.go_on.set()
        with suppress(sqlite3.OperationalError):  # it was not the stranger who had it
            self.stranger.execute("ROLLBACK")
        self.stranger.execute(str(_INSERT))
        for caller in self.callers:
            with pytest.raises(ClosedError):
                caller.join()
        assert self.stranger.execute("SELECT count(*) FROM t").fetchone() == (1,)
        self.stranger.close()


@pytest.mark.parametrize("number", range(4))
def test_waiting_for_another_session(number: int, tmp_path: Path) -> None:
    """Who waits in BEGIN for another session's transaction is told, and the process lives."""
    writers = Writers(tmp_path / f"{number}.db")
    writers.begin()
    assert writers.writes.wait(10)
    writers.begin()
    writers.close()


@pytest.mark.parametrize("number", range(4))
def test_waiting_for_a_stranger(number: int, tmp_path: Path) -> None:
    """A waiter for another one's connection gets an error as well."""
    writers = Writers(tmp_path / f"{number}.db")
    writers.stranger.execute("BEGIN IMMEDIATE")
    writers.begin()
    writers.close()


def test_own_session_is_not_cancelled(settings: DatabaseSettings) -> None:
    """Nothing runs on what the caller of ``close`` has: no time is spent on asking for its end."""
    with FaultProxy(settings.url) as proxy:
        factory = SqlAlchemySessionFactory(attrs.evolve(settings, url=proxy.url))
        with factory() as session:
            session.scalar(_PID)
            (holder,) = factory.close(timeout=0)
            assert proxy.connections == 1
        assert holder.owner.startswith("thread MainThread")


def test_a_ping_of_a_loop_that_stands_still(settings: DatabaseSettings) -> None:
    """A task that wakes up in a pool that was replaced meanwhile gets an error, or its session."""
    pool = attrs.evolve(settings.pool, ping_after=0)
    factory = AsyncSqlAlchemySessionFactory(attrs.evolve(settings, pool=pool))

    async def ask() -> object:
        async with factory() as session:
            return await session.scalar(text("SELECT 1"))

    with asyncio.Runner() as stands, asyncio.Runner() as runs:
        for steps in range(12):
            stands.run(ask())

            async def begin(steps: int = steps) -> asyncio.Task[object]:
                task = asyncio.create_task(ask())
                for _ in range(steps):
                    await asyncio.sleep(0)  # it begins to ping, or to ask
                return task

            task = stands.run(begin())
            assert runs.run(ask()) == 1
            with suppress(DBAPIError):
                assert stands.run(asyncio.wait_for(task, 10)) == 1

    async def close() -> None:
        await factory.aclose()

    asyncio.run(close())


def test_a_driver_without_a_lock() -> None:
    """Its holder is unknown: its socket is shut down, and the holder frees the rest."""
    here, there = socket.socketpair()
    calls: list[str] = []

    class Connection:  # as mysqlclient's, which has to be compiled
        fileno = staticmethod(here.fileno)

        def close(self) -> None:
            calls.append("close")

    Connection.__module__ = "MySQLdb.connections"
    connection = cast("DBAPIConnection", Connection())
    with here, there:
        assert connections.is_entered(connection)
        connections.hang_up(connection)
        connections.close_entered(connection, 0.0)
        assert there.recv(1) == b""
        assert calls == []


def test_a_task_inside(settings: DatabaseSettings, postgres_server: PostgresServer) -> None:
    """So does a task, which would wake up in a connection that is not there any more."""

    async def main() -> None:
        factory = AsyncSqlAlchemySessionFactory(settings)
        async with factory() as session:
            proxied = await (await session.connection()).get_raw_connection()
            driver: Any = proxied.driver_connection
            pid = await session.scalar(_PID)
            async with driver.lock:
                await asyncio.create_task(factory.aclose(timeout=0))
                assert not driver.closed
                until(lambda: is_gone(postgres_server, pid))
            with pytest.raises(ClosedError):
                await session.scalar(_PID)
        await driver.close()

    asyncio.run(main())


def test_no_task_inside(settings: DatabaseSettings) -> None:
    """A connection whose task does something else is closed."""

    async def main() -> None:
        factory = AsyncSqlAlchemySessionFactory(settings)
        async with factory() as session:
            proxied = await (await session.connection()).get_raw_connection()
            driver: Any = proxied.driver_connection
            await asyncio.create_task(factory.aclose(timeout=0))
            assert driver.closed

    asyncio.run(main())
