"""``close`` against a holder who is inside the driver's C code, which must keep its connection.

psycopg does not notice that it was closed: the process would die, once in some 60 storms.
"""

from __future__ import annotations

import asyncio
import socket
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import psycopg
import pytest
from sqlalchemy import event, text

from sessionfactory import (
    AsyncSqlAlchemySessionFactory,
    ClosedError,
    DatabaseSettings,
    SqlAlchemySessionFactory,
)
from sessionfactory.engine import connections
from tests.engine.sqlite_pools import Caller, until

if TYPE_CHECKING:
    from sqlalchemy.engine.interfaces import DBAPIConnection

    from sessionfactory.testing import PostgresServer

_PID = text("SELECT pg_backend_pid()")


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


def test_a_driver_without_a_lock() -> None:
    """Nobody can know who is inside: its socket is shut down, and its holder frees the rest."""
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
