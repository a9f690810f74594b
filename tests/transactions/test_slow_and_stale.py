"""A statement that is too slow is not repeated; one whose plan is stale is."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from sessionfactory import (
    AsyncSqlAlchemySessionFactory,
    DatabaseSettings,
    SqlAlchemySessionFactory,
    is_transient,
    run_in_transaction,
    run_in_transaction_async,
)
from tests.support.ways import ONE

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import Session

    from sessionfactory.testing import MariaDBServer, PostgresServer

EVERY_NOTE = text("SELECT * FROM note")
CHANGE = "ALTER TABLE note ADD COLUMN more int"


@pytest.mark.parametrize(
    "settings",
    [
        {"statement_timeout": 0.2},
        {"engine_options": {"connect_args": {"command_timeout": 0.2}}},
    ],
    ids=["statement_timeout", "command_timeout"],
)
def test_a_time_limit_of_asyncpg_is_not_retried(
    settings: dict[str, Any], postgres_server: PostgresServer
) -> None:
    """The driver's own limit for a statement means the same as the server's."""
    calls: list[int] = []

    async def work(session: AsyncSession) -> None:
        calls.append(1)
        await session.execute(text("SELECT pg_sleep(20)"))

    async def main() -> None:
        url = postgres_server.url_for(driver="asyncpg")
        async with AsyncSqlAlchemySessionFactory(DatabaseSettings(url, **settings)) as sessions:
            await run_in_transaction_async(sessions, work)

    with pytest.raises((TimeoutError, DBAPIError)) as caught:
        asyncio.run(main())
    assert not is_transient(caught.value)
    assert calls == [1]


def test_a_time_limit_of_pymysql_is_not_retried(mariadb_server: MariaDBServer) -> None:
    """Nor is PyMySQL's, whose error is otherwise that of a lost connection."""
    calls: list[int] = []
    settings = DatabaseSettings(
        mariadb_server.url, engine_options={"connect_args": {"read_timeout": 1}}
    )

    def work(session: Session) -> None:
        calls.append(1)
        session.execute(text("SELECT SLEEP(20)"))

    with (
        SqlAlchemySessionFactory(settings) as sessions,
        pytest.raises(DBAPIError, match="timed out"),
    ):
        run_in_transaction(sessions, work)
    assert calls == [1]


def test_a_stale_plan_of_asyncpg_is_retried(postgres_server: PostgresServer) -> None:
    """After a migration, a statement that was prepared before succeeds at the second attempt."""
    calls: list[int] = []

    async def read(session: AsyncSession) -> int:
        calls.append(1)
        return len((await session.execute(EVERY_NOTE)).keys())

    async def main() -> int:
        url = postgres_server.url_for(driver="asyncpg")
        async with AsyncSqlAlchemySessionFactory(DatabaseSettings(url, pool=ONE)) as sessions:
            await run_in_transaction_async(sessions, read)
            postgres_server.execute(CHANGE)
            return await run_in_transaction_async(sessions, read)

    postgres_server.execute("CREATE TABLE note (id int)")
    try:
        assert asyncio.run(main()) == 2
    finally:
        postgres_server.execute("DROP TABLE note")
    assert len(calls) == 3


@pytest.mark.parametrize("pipeline", [False, True], ids=["plain", "pipeline"])
def test_a_stale_plan_of_psycopg_is_retried(pipeline: Any, postgres_server: PostgresServer) -> None:
    """So it does on psycopg, which prepares a statement at its sixth use."""
    settings = DatabaseSettings(postgres_server.url, pool=ONE, pipeline=pipeline)

    def read(session: Session) -> int:
        return len(session.execute(EVERY_NOTE).keys())

    postgres_server.execute("CREATE TABLE note (id int)")
    try:
        with SqlAlchemySessionFactory(settings) as sessions:
            for _ in range(8):
                run_in_transaction(sessions, read)
            postgres_server.execute(CHANGE)
            assert run_in_transaction(sessions, read) == 2
    finally:
        postgres_server.execute("DROP TABLE note")
