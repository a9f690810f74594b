"""``aclose()`` on real servers: tasks are waited for, then cancelled, then cut off, and named."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from sessionfactory import AsyncSqlAlchemySessionFactory, ClosedError, DatabaseSettings
from sessionfactory.testing import FaultProxy

if TYPE_CHECKING:
    from collections.abc import Generator

    from sessionfactory.testing import MariaDBServer, PostgresServer

SLEEP = {
    "psycopg": "SELECT pg_sleep(60)",
    "asyncpg": "SELECT pg_sleep(60)",
    "aiomysql": "SELECT SLEEP(60)",
    "aiosqlite": (
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    ),
}
Made = tuple[str, AsyncSqlAlchemySessionFactory]


@pytest.fixture(params=list(SLEEP))
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A statement that does not end, and a factory for each asynchronous driver."""
    driver: str = request.param
    if driver == "aiosqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('close') / 'app.db'}"
    elif driver == "aiomysql":
        mariadb: MariaDBServer = request.getfixturevalue("mariadb_server")
        url = mariadb.async_url
    else:
        postgres: PostgresServer = request.getfixturevalue("postgres_server")
        url = f"postgresql+{driver}://" + postgres.url.partition("://")[2]
    return SLEEP[driver], AsyncSqlAlchemySessionFactory(DatabaseSettings(url))


@pytest.fixture(autouse=True)
def _nothing_runs_on(postgres_server: PostgresServer) -> Generator[None]:
    """End what a server goes on with after its client hung up: it notices when it next writes."""
    yield
    postgres_server.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
        " WHERE query LIKE '%pg_sleep(60)%' AND pid <> pg_backend_pid()"
    )


async def until_out(factory: AsyncSqlAlchemySessionFactory, count: int = 1) -> None:
    """Wait until so many connections are out."""
    while factory.status().in_use < count:  # noqa: ASYNC110 - nothing tells when
        await asyncio.sleep(0.001)


@pytest.mark.asyncio
async def test_statement_that_does_not_end(made: Made) -> None:
    """A task in a statement is told by an error, and named; afterwards nothing is out."""
    statement, factory = made

    async def work() -> None:
        async with factory.begin() as session:
            await session.execute(text(statement))

    worker = asyncio.create_task(work(), name="worker")
    await until_out(factory)
    (holder,) = await asyncio.wait_for(factory.aclose(timeout=0.1), 10)
    assert holder.owner == "task worker"
    assert "in test_statement_that_does_not_end.<locals>.work" in holder.where
    with pytest.raises((DBAPIError, ClosedError)):
        await asyncio.wait_for(worker, 10)
    assert factory.status().in_use == 0


@pytest.mark.asyncio
async def test_task_that_holds_its_connection(made: Made) -> None:
    """A task that does nothing with its connection is cut off, and told when it goes on."""
    _, factory = made
    go_on = asyncio.Event()

    async def work() -> None:
        async with factory.begin() as session:
            await session.execute(text("SELECT 1"))
            await go_on.wait()
            await session.execute(text("SELECT 2"))

    worker = asyncio.create_task(work(), name="worker")
    await until_out(factory)
    assert [holder.owner for holder in await factory.aclose(timeout=0.1)] == ["task worker"]
    go_on.set()
    with pytest.raises(ClosedError, match="was closed, and this connection with it"):
        await worker
    assert factory.status().size == 0


@pytest.mark.asyncio
async def test_task_that_ends_in_time(made: Made) -> None:
    """A task that ends its transaction is waited for, and no holder is cut off."""
    _, factory = made
    go_on = asyncio.Event()

    async def work() -> object:
        async with factory.begin() as session:
            await go_on.wait()
            return await session.scalar(text("SELECT 1"))

    async def first() -> object:
        async with factory.begin() as session:
            await session.scalar(text("SELECT 1"))
            await go_on.wait()
            return await session.scalar(text("SELECT 2"))

    worker, late = asyncio.create_task(first()), asyncio.create_task(work())
    await until_out(factory)
    closing = asyncio.create_task(factory.aclose())
    await asyncio.sleep(0)
    go_on.set()
    assert await worker == 2
    assert await closing == ()
    with pytest.raises(ClosedError):
        await late
    with pytest.raises(ClosedError):
        factory.begin()


@pytest.mark.asyncio
async def test_own_connection_is_cut_at_once(made: Made) -> None:
    """What the closing task holds itself cannot come back while it waits."""
    _, factory = made
    session = factory()
    await session.execute(text("SELECT 1"))
    async with asyncio.timeout(10):  # wait_for would make another task of it
        (holder,) = await factory.aclose(timeout=60)
    assert "test_own_connection_is_cut_at_once" in holder.where
    await session.close()
    assert factory.status().size == 0


@pytest.mark.asyncio
async def test_cancelled_close(made: Made) -> None:
    """A close that is cancelled waits no longer, and disposes of the engine all the same."""
    _, factory = made
    session = factory()
    await session.execute(text("SELECT 1"))
    closing = asyncio.create_task(factory.aclose(timeout=60))
    while not factory._managed.ledger.closed:  # noqa: ASYNC110 - nothing tells when
        await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    await session.close()
    assert factory.status().size == 0


@pytest.mark.asyncio
@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
async def test_silent_network(driver: str, postgres_server: PostgresServer) -> None:
    """A network that went silent does not hold the closing task, nor the one that is cut off."""
    with FaultProxy(postgres_server.url) as proxy:
        url = proxy.url.set(drivername=f"postgresql+{driver}")
        factory = AsyncSqlAlchemySessionFactory(DatabaseSettings(url))

        async def work() -> None:
            async with factory.begin() as session:
                await session.execute(text("SELECT pg_sleep(60)"))

        worker = asyncio.create_task(work())
        await until_out(factory)
        proxy.black_hole()
        assert len(await asyncio.wait_for(factory.aclose(timeout=0.1), 10)) == 1
        with pytest.raises((DBAPIError, ClosedError)):
            await asyncio.wait_for(worker, 20)
