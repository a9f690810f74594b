"""A pool that reuses no connection serves an event loop in each of several threads."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from sessionfactory import AsyncSqlAlchemySessionFactory, DatabaseSettings, PoolSettings

if TYPE_CHECKING:
    from sessionfactory.testing import PostgresServer


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_loops_that_connect_first_at_the_same_time(
    postgres_server: PostgresServer, driver: str
) -> None:
    """Each of them gets its connection, also after the engine was disposed of."""
    settings = DatabaseSettings(postgres_server.url_for(driver), pool=PoolSettings(kind="none"))
    factory = AsyncSqlAlchemySessionFactory(settings)

    async def work() -> object:
        async with factory.begin() as session:
            return await session.scalar(text("SELECT 1 FROM pg_sleep(0.01)"))

    def run_both() -> list[object]:
        with ThreadPoolExecutor(4) as threads:
            futures = [threads.submit(asyncio.run, work()) for _ in range(8)]
            return [future.result() for future in futures]

    assert run_both() == [1] * 8
    factory.engine.sync_engine.dispose()
    assert run_both() == [1] * 8
    asyncio.run(factory.aclose())
    assert factory.status().in_use == 0
