"""After ``close`` under load, a server has no connection of ours, and does nothing for us."""

from __future__ import annotations

import asyncio
import gc
import logging
import select
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Literal, cast

import pytest
from sqlalchemy import URL, create_engine, event, make_url, text

from sessionfactory import (
    AsyncSqlAlchemySessionFactory,
    ClosedError,
    DatabaseSettings,
    PoolSettings,
    SqlAlchemySessionFactory,
)
from sessionfactory.drivers import connections, server_processes
from sessionfactory.drivers.transport import asyncio_transport
from sessionfactory.testing import FaultProxy, PostgresServer
from tests.support.available import running_or_skipped
from tests.support.drained import DRIVERS, Load, server_of, until_none
from tests.support.pgbouncer import PgBouncer

server = pytest.fixture(server_of)

if TYPE_CHECKING:
    from sqlalchemy.engine.interfaces import DBAPIConnection

    from sessionfactory.testing import MariaDBServer
    from tests.support.drained import Server


@pytest.mark.parametrize("driver", DRIVERS)
def test_under_load(driver: str, server: Server) -> None:
    """Short scopes end well or were refused; who is late is named; nothing stays on the server."""
    load = Load(server, driver)
    load.close(timeout=0.5)
    until_none(server)
    assert {holder.owner.split()[1] for holder in load.cut_off} >= {"sleep", "sit"}
    assert load.errors["work: ClosedError"] == 6
    assert load.errors["sit: ClosedError"] == 1
    assert load.errors.total() == 8
    assert server.execute("SELECT count(*) FROM drained") == str(load.committed)


class Stranger:
    """A connection of another client, which an engine knows by its number."""

    def __init__(self, server: Server, driver: str) -> None:
        self._engine = create_engine(server.url_for(driver))
        self._connection = self._engine.raw_connection()
        self.number = connections.backend_of(self._connection.dbapi_connection)

    def lives(self) -> bool:
        """Say whether it still works, and close it."""
        try:
            return self._engine.dialect.do_ping(
                cast("DBAPIConnection", self._connection.dbapi_connection)
            )
        except self._engine.dialect.loaded_dbapi.Error:
            return False
        finally:
            self._connection.invalidate()
            self._engine.dispose()


def end(url: str, number: int | None) -> None:
    with SqlAlchemySessionFactory(DatabaseSettings(url)) as factory:
        server_processes.end(factory.engine, [number, None], time.sleep)
        server_processes.end(factory.engine, [None], time.sleep)


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2", "pymysql"])
def test_by_number(driver: str, server: Server) -> None:
    """A connection is ended from another one, by the number that its driver knows."""
    stranger = Stranger(server, driver)
    end(server.url_for(driver), stranger.number)
    assert not stranger.lives()


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_behind_a_pooler(driver: str, postgres_server: PostgresServer) -> None:
    """Behind a pooler, numbers are not the server's: no connection is ended then."""
    with running_or_skipped(PgBouncer(postgres_server)) as pooler:
        stranger = Stranger(postgres_server, driver)
        end(pooler.url_for(driver), stranger.number)
        assert stranger.lives()


def test_behind_a_proxy(mariadb_server: MariaDBServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor behind a proxy that numbers MariaDB's connections by itself."""
    stranger = Stranger(mariadb_server, "pymysql")

    def number_of_the_proxy(_: object) -> int | None:
        return stranger.number

    monkeypatch.setattr(connections, "backend_of", number_of_the_proxy)
    end(mariadb_server.url, stranger.number)
    assert stranger.lives()


@pytest.mark.asyncio
@pytest.mark.parametrize("driver", ["psycopg", "asyncpg", "aiomysql"])
async def test_idle_on_a_silent_network(driver: str, server: Server) -> None:
    """An idle connection that cannot be closed in the regular way does not hold ``aclose`` up."""
    with FaultProxy(server.url) as proxy:
        url = proxy.url.set(drivername=f"{proxy.url.get_backend_name()}+{driver}")
        factory = AsyncSqlAlchemySessionFactory(DatabaseSettings(url))
        async with factory() as session:
            await session.execute(text("SELECT 1"))
        proxy.black_hole()
        async with asyncio.timeout(20):
            assert await factory.aclose(timeout=60) == ()
        assert factory.status().size == 0


def on_socket(server: Server, driver: str) -> URL:
    """Return a server's URL by which a driver gets there through its socket in the file system.

    There a write fails as soon as the other end is closed, and not only the second one.
    """
    if isinstance(server, PostgresServer):
        return make_url(server.socket_url).set(drivername=f"postgresql+{driver}")
    through = {"unix_socket": str(server._socket)}
    return URL.create(f"mysql+{driver}", username="root", query=through)


@pytest.mark.asyncio
@pytest.mark.parametrize("driver", ["psycopg", "asyncpg", "aiomysql"])
async def test_server_that_closed_first(
    driver: str, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """A connection that the server ended unnoticed is closed without a warning."""
    factory = AsyncSqlAlchemySessionFactory(DatabaseSettings(on_socket(server, driver)))
    async with factory() as session:
        proxied = await (await session.connection()).get_raw_connection()
        driver_connection = proxied.driver_connection
    if driver != "psycopg":  # which reads only when it is asked something
        asyncio_transport.transport_of(driver_connection).pause_reading()
    end_of_line = select.poll()
    end_of_line.register(connections.descriptor_of(driver_connection) or -1, select.POLLRDHUP)
    number = connections.backend_of(cast("DBAPIConnection", driver_connection))
    on_postgres = isinstance(server, PostgresServer)
    server.execute(f"SELECT pg_terminate_backend({number})" if on_postgres else f"KILL {number}")
    assert end_of_line.poll(20_000)
    assert await factory.aclose() == ()
    assert factory.status().size == 0
    del proxied, driver_connection
    gc.collect()  # what is open still is told of now
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.parametrize("kind", ["fair", "none"])
@pytest.mark.parametrize("driver", ["psycopg", "pymysql"])
def test_connection_being_opened(
    driver: str, kind: Literal["fair", "none"], server: Server
) -> None:
    """A connection that is just being opened is waited for, and closed before ``close`` returns."""
    with FaultProxy(server.url, latency=0.004) as proxy:
        url = proxy.url.set(drivername=f"{proxy.url.get_backend_name()}+{driver}")
        settings = DatabaseSettings(url, pool=PoolSettings(kind=kind))
        factory = SqlAlchemySessionFactory(settings)
        closed: list[object] = []
        event.listen(factory.engine, "close", lambda *_: closed.append(True))

        def work() -> None:
            with suppress(ClosedError), factory.begin() as session:
                session.execute(text("SELECT 1"))

        worker = threading.Thread(target=work)
        worker.start()
        while not proxy.connections:
            pass
        assert factory.close() == ()
        assert closed
        worker.join(20)
