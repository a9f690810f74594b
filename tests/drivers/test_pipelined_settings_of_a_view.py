"""On pipelined connections, a view's settings hold whatever comes first in a transaction."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

import pytest
from psycopg import ProgrammingError
from psycopg.pq import TransactionStatus
from psycopg.types import TypeInfo
from sqlalchemy import text

from sessionfactory import (
    AsyncSqlAlchemySessionFactory,
    DatabaseSettings,
    SqlAlchemySessionFactory,
    with_options,
)
from tests.support.halves import in_both_halves

if TYPE_CHECKING:
    from collections.abc import Callable

    from sessionfactory.testing import PostgresServer
    from tests.support.halves import Half


def tenants_of(half: Half, sessions: object) -> Any:
    """Return a view whose transactions belong to a tenant, and have a time limit."""
    make: Callable[..., Any] = with_options
    return half.make(make, sessions, local={"app.tenant": "7"}, statement_timeout=7.5)


def made_for(half: Half, server: PostgresServer) -> Any:
    """Return a factory on pipelined connections."""
    make: Callable[..., Any] = AsyncSqlAlchemySessionFactory
    return half.make(make, DatabaseSettings(server.url_for("psycopg"), pipeline=True))


@pytest.mark.parametrize("first", ["get_isolation_level", "begin_nested", "in_transaction"])
@in_both_halves
async def test_first_acts(half: Half, first: str, postgres_server: PostgresServer) -> None:
    """What asks or begins something first is in the transaction that has the settings."""
    async with made_for(half, postgres_server) as sessions:
        async with tenants_of(half, sessions)() as session:
            connection = await session.connection()
            if first == "get_isolation_level":
                assert await connection.get_isolation_level() == "READ COMMITTED"
            elif first == "begin_nested":
                await (await session.begin_nested()).rollback()
            else:
                assert connection.in_transaction()
            assert await session.scalar(text("SELECT current_setting('app.tenant', true)")) == "7"
            assert await session.scalar(text("SHOW statement_timeout")) == "7500ms"
        async with sessions() as session:
            tenant = text("SELECT coalesce(current_setting('app.tenant', true), '')")
            assert await session.scalar(tenant) == ""


def test_autocommit_behind_sqlalchemy_s_back(postgres_server: PostgresServer) -> None:
    """The driver's connection refuses AUTOCOMMIT as it does in any transaction."""
    settings = DatabaseSettings(postgres_server.url_for("psycopg"), pipeline=True)
    with (
        SqlAlchemySessionFactory(settings) as sessions,
        with_options(sessions, local={"app.tenant": "7"})() as session,
    ):
        driver: Any = session.connection().connection.driver_connection
        with pytest.raises(ProgrammingError, match="can't change 'autocommit' now"):
            driver.autocommit = True
        assert session.scalar(text("SELECT current_setting('app.tenant', true)")) == "7"


TENANT = "SELECT current_setting('app.tenant', true)"


def test_a_block_of_the_driver(postgres_server: PostgresServer) -> None:
    """A transaction block of psycopg's, as the first act, is a savepoint that has the settings."""
    settings = DatabaseSettings(postgres_server.url_for("psycopg"), pipeline=True)
    with (
        SqlAlchemySessionFactory(settings) as sessions,
        with_options(sessions, local={"app.tenant": "7"})() as session,
    ):
        driver: Any = session.connection().connection.driver_connection
        with driver.transaction():
            assert driver.execute(TENANT).fetchone() == ("7",)
        assert driver.info.transaction_status == TransactionStatus.INTRANS
        assert session.scalar(text(TENANT)) == "7"


def test_a_type_is_looked_up(postgres_server: PostgresServer) -> None:
    """``TypeInfo.fetch`` as the first act leaves the transaction and its settings in place."""
    settings = DatabaseSettings(postgres_server.url_for("psycopg"), pipeline=True)
    with (
        SqlAlchemySessionFactory(settings) as sessions,
        with_options(sessions, local={"app.tenant": "7"})() as session,
    ):
        driver: Any = session.connection().connection.driver_connection
        found = cast("TypeInfo | None", TypeInfo.fetch(driver, "int4"))
        assert found is not None
        assert found.oid == 23
        assert driver.info.transaction_status == TransactionStatus.INTRANS
        assert session.scalar(text(TENANT)) == "7"


def test_the_driver_first_in_the_async_half(postgres_server: PostgresServer) -> None:
    """The same holds for psycopg's asynchronous connections."""
    settings = DatabaseSettings(postgres_server.url_for("psycopg"), pipeline=True)

    async def use() -> None:
        async with AsyncSqlAlchemySessionFactory(settings) as sessions:
            view = with_options(sessions, local={"app.tenant": "7"})
            async with view() as session:
                connection = await session.connection()
                driver: Any = (await connection.get_raw_connection()).driver_connection
                async with driver.transaction():
                    rows = await driver.execute(TENANT)
                    assert await rows.fetchone() == ("7",)
                assert driver.info.transaction_status == TransactionStatus.INTRANS
            async with view() as session:
                connection = await session.connection()
                driver = (await connection.get_raw_connection()).driver_connection
                found = cast("TypeInfo | None", await TypeInfo.fetch(driver, "int4"))
                assert found is not None
                assert found.oid == 23
                assert driver.info.transaction_status == TransactionStatus.INTRANS
                assert await session.scalar(text(TENANT)) == "7"

    asyncio.run(use())
