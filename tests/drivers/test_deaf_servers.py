"""A server that accepts connections and never answers holds an attempt for its time limit only."""

from __future__ import annotations

import asyncio
import gc
import socket
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.util.concurrency import greenlet_spawn

from sessionfactory import DatabaseSettings, PoolSettings, SqlAlchemySessionFactory
from sessionfactory.drivers import dialects

if TYPE_CHECKING:
    from collections.abc import Generator

    from sqlalchemy import Engine

    from sessionfactory.testing import MariaDBServer, PostgresServer

SYNC = ("mysql+pymysql", "mysql+mysqlconnector", "postgresql+psycopg2", "postgresql+pg8000")
ASYNC = ("mysql+aiomysql", "mysql+asyncmy", "postgresql+asyncpg")


@pytest.fixture
def deaf() -> Generator[int]:
    """The port of a server whose kernel accepts, and which never reads."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def limit_of(drivername: str) -> dict[str, Any]:
    """Return a short time limit, in the driver's words."""
    name = {"mysqlconnector": "connection_timeout", "pg8000": "timeout", "asyncpg": "timeout"}
    return {name.get(drivername.partition("+")[2], "connect_timeout"): 1}


def use_chain_of_the_driver(engine: Engine) -> None:
    """Make an engine connect in the way that its driver needs, and with nothing else of ours."""
    vars(engine.dialect)["connect"] = dialects.connecting_as_known(
        engine.dialect, engine.dialect.connect
    )


# pg8000 leaves the socket of a failed attempt to the garbage collection.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("drivername", SYNC)
def test_sync_drivers(drivername: str, deaf: int) -> None:
    """The attempt ends by itself, without anyone who hangs up."""
    engine = create_engine(
        f"{drivername}://app@127.0.0.1:{deaf}/shop", connect_args=limit_of(drivername)
    )
    use_chain_of_the_driver(engine)
    with pytest.raises(Exception, match=r"(?s).*") as caught:
        engine.raw_connection()
    assert not isinstance(caught.value, TypeError)
    del caught
    gc.collect()


@pytest.mark.parametrize("drivername", ASYNC)
def test_async_drivers(drivername: str, deaf: int) -> None:
    """The same, and no socket is left open."""
    from sqlalchemy.ext.asyncio import create_async_engine  # noqa: PLC0415

    async def connect() -> None:
        url = f"{drivername}://app@127.0.0.1:{deaf}/shop"
        engine = create_async_engine(url, connect_args=limit_of(drivername)).sync_engine
        use_chain_of_the_driver(engine)
        await greenlet_spawn(engine.raw_connection)

    with pytest.raises(Exception, match=r"(?s).*") as caught:
        asyncio.run(connect())
    assert not isinstance(caught.value, TypeError)


def test_the_limit_is_for_connecting(mariadb_server: MariaDBServer) -> None:
    """A statement may take longer than the time limit for connecting."""
    settings = DatabaseSettings(mariadb_server.url, connect_timeout=1)
    with SqlAlchemySessionFactory(settings) as sessions, sessions() as session:
        assert session.scalar(text("SELECT sleep(1.5)")) == 0


def test_the_limit_is_for_connecting_on_pg8000(postgres_server: PostgresServer) -> None:
    """The same on pg8000, whose limit would go on to limit each answer."""
    settings = DatabaseSettings(
        postgres_server.url_for("pg8000"), connect_timeout=1, pool=PoolSettings(size=1)
    )
    with SqlAlchemySessionFactory(settings) as sessions, sessions() as session:
        assert session.scalar(text("SELECT 1 FROM pg_sleep(1.5)")) == 1
