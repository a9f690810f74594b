"""A connection whose ROLLBACK has failed is not used again."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import pytest
from packaging.version import Version
from sqlalchemy import __version__ as sqlalchemy_version
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from sessionfactory import AsyncSqlAlchemySessionFactory, DatabaseSettings, PoolSettings

if TYPE_CHECKING:
    from sessionfactory.testing import PostgresServer


KEEPS: Final = Version(sqlalchemy_version) < Version("2.1")
"""Whether SQLAlchemy keeps a connection whose ``close()`` failed checked out."""


@pytest.mark.anyio
@pytest.mark.parametrize(
    "driver",
    [
        pytest.param(
            "asyncpg", marks=pytest.mark.skipif(KEEPS, reason="SQLAlchemy 2.0 keeps it checked out")
        ),
        "psycopg",
    ],
)
async def test_scope_that_ends_while_a_statement_runs(
    driver: str, postgres_server: PostgresServer
) -> None:
    """A connection that is closed while another task is inside costs the pool nothing."""
    settings = DatabaseSettings(
        postgres_server.url_for(driver), pool=PoolSettings(size=1, max_overflow=0)
    )
    async with AsyncSqlAlchemySessionFactory(settings) as sessions:
        statement = None
        try:
            async with sessions.engine.connect() as connection:
                await connection.execute(text("SELECT 1"))
                sleeping = connection.execute(text("SELECT pg_sleep(0.3)"))
                statement = asyncio.create_task(sleeping)
                await asyncio.sleep(0.1)
        except DBAPIError:  # asyncpg's: another operation is in progress
            assert driver == "asyncpg"
        assert statement is not None
        await asyncio.wait([statement])
        statement.exception()
        async with sessions.begin() as session:
            assert await session.scalar(text("SELECT 2")) == 2
