"""Connections that a function of the user's opens, as a cloud provider's connector does."""

from __future__ import annotations

import asyncio
from importlib import import_module
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from sqlalchemy import make_url, text

from sessionfactory import (
    AsyncSqlAlchemySessionFactory,
    DatabaseSettings,
    PoolSettings,
    SettingsError,
    SqlAlchemySessionFactory,
)

if TYPE_CHECKING:
    from sessionfactory.testing import PostgresServer

LIMITS = text("SELECT current_setting('statement_timeout'), current_setting('lock_timeout')")


def arguments(server: PostgresServer) -> dict[str, Any]:
    """Return how a connector that knows the server connects."""
    url = make_url(server.url)
    return {"host": url.host, "port": url.port, "user": url.username, "password": url.password}


def test_creator(postgres_server: PostgresServer) -> None:
    """The function opens every connection; time limits hold, and the books count it."""
    opened: list[object] = []

    def connect() -> psycopg.Connection[Any]:
        connection = psycopg.connect(**arguments(postgres_server), dbname="postgres")
        opened.append(connection)
        return connection

    settings = DatabaseSettings(
        "postgresql+psycopg://",
        statement_timeout=5,
        lock_timeout=2,
        pool=PoolSettings(size=1, max_overflow=0),
        engine_options={"creator": connect},
    )
    with SqlAlchemySessionFactory(settings) as sessions:
        for _ in range(2):
            with sessions.begin() as session:
                assert session.execute(LIMITS).one() == ("5s", "2s")
                assert sessions.status().in_use == 1
        assert sessions.ping().state == "ok"
    assert len(opened) == 1


def test_async_creator(postgres_server: PostgresServer) -> None:
    """The same in the async half, whose function is a coroutine function."""
    asyncpg: Any = import_module("asyncpg")

    async def connect() -> Any:
        return await asyncpg.connect(**arguments(postgres_server), database="postgres")

    settings = DatabaseSettings(
        "postgresql+asyncpg://", statement_timeout=5, engine_options={"async_creator": connect}
    )

    async def ask() -> tuple[object, ...]:
        async with AsyncSqlAlchemySessionFactory(settings) as sessions, sessions() as session:
            return tuple((await session.execute(LIMITS)).one())

    assert asyncio.run(ask())[0] == "5s"


def test_a_creator_in_plaintext(postgres_server: PostgresServer) -> None:
    """A connection that the function opened without the encryption asked for is refused."""

    def connect() -> psycopg.Connection[Any]:
        return psycopg.connect(**arguments(postgres_server), dbname="postgres", sslmode="disable")

    settings = DatabaseSettings(
        "postgresql+psycopg://", tls="require", engine_options={"creator": connect}
    )
    with (
        SqlAlchemySessionFactory(settings) as sessions,
        pytest.raises(SettingsError, match="tls: the connection is not encrypted"),
    ):
        sessions().connection()


def test_the_other_halfs_function() -> None:
    """A function of the other half is refused, with the name of the right one."""
    settings = DatabaseSettings("postgresql://", engine_options={"async_creator": object})
    with pytest.raises(SettingsError, match="async_creator is not for the sync half; give creator"):
        SqlAlchemySessionFactory(settings)
    settings = DatabaseSettings("postgresql://", engine_options={"creator": object})
    with pytest.raises(SettingsError, match="creator is not for the async half; give async_cr"):
        AsyncSqlAlchemySessionFactory(settings)


def test_no_function() -> None:
    """What cannot be called is refused."""
    settings = DatabaseSettings("postgresql://", engine_options={"creator": "connect"})
    with pytest.raises(SettingsError, match=r"creator is a function that opens .*, not str"):
        SqlAlchemySessionFactory(settings)


def test_no_pipeline() -> None:
    """Pipelined connections are opened by this package itself."""
    settings = DatabaseSettings(
        "postgresql://", pipeline=True, engine_options={"creator": psycopg.connect}
    )
    with pytest.raises(SettingsError, match=r"pipeline: .* take creator away"):
        SqlAlchemySessionFactory(settings)
