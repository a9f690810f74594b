"""An async factory and its event loops: one after another is served, one beside another refused."""

from __future__ import annotations

import asyncio
import gc
import threading
from typing import TYPE_CHECKING, cast

import pytest
from sqlalchemy import text

from sessionfactory import (
    AsyncSqlAlchemySessionFactory,
    ClosedError,
    DatabaseSettings,
    EventLoopError,
    PoolSettings,
    with_options,
)
from sessionfactory.drivers import connections
from sessionfactory.pool.loop_bound import AsyncFairPool

if TYPE_CHECKING:
    from collections.abc import Generator

    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.ext.asyncio import AsyncSession

    from sessionfactory import AsyncSessionFactory
    from sessionfactory.testing import MariaDBServer, PostgresServer

DATABASES = ("psycopg", "asyncpg", "aiomysql", "aiosqlite")
ONE = text("SELECT 1")


@pytest.fixture(params=DATABASES)
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URL of a database for each asynchronous driver."""
    if request.param == "aiosqlite":
        return f"sqlite:///{tmp_path_factory.mktemp('loops') / 'app.db'}"
    if request.param == "aiomysql":
        mariadb: MariaDBServer = request.getfixturevalue("mariadb_server")
        return mariadb.async_url
    postgres: PostgresServer = request.getfixturevalue("postgres_server")
    return f"postgresql+{request.param}://" + postgres.url.partition("://")[2]


@pytest.fixture
def factory(url: str) -> Generator[AsyncSqlAlchemySessionFactory]:
    """A factory of three connections, closed in a loop of its own."""
    settings = DatabaseSettings(url, pool=PoolSettings(size=3, max_overflow=0, timeout=5))
    made = AsyncSqlAlchemySessionFactory(settings)
    yield made
    asyncio.run(made.aclose())


async def ask(factory: AsyncSqlAlchemySessionFactory) -> int:
    async with factory.begin() as session:
        return int((await session.execute(ONE)).scalar_one())


async def ask_eight_times(factory: AsyncSqlAlchemySessionFactory) -> list[int]:
    return await asyncio.gather(*(ask(factory) for _ in range(8)))


def test_twenty_loops_in_a_row(factory: AsyncSqlAlchemySessionFactory) -> None:
    """Each ``asyncio.run`` works, and leaves neither warnings nor connections behind."""
    for _ in range(20):
        assert asyncio.run(ask_eight_times(factory)) == [1] * 8
        assert factory.status().size <= 3
    gc.collect()  # what a loop that is gone left open would warn now


def test_loops_in_a_row_log_no_error(
    factory: AsyncSqlAlchemySessionFactory, caplog: pytest.LogCaptureFixture
) -> None:
    """Connections of each loop that is gone are abandoned without an error, also by the close."""

    async def is_bound() -> bool:
        await ask(factory)
        pool = factory.engine.pool
        assert isinstance(pool, AsyncFairPool)
        return pool.loop is asyncio.get_running_loop()

    assert [asyncio.run(is_bound()) for _ in range(4)] == [True] * 4
    asyncio.run(factory.aclose())
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_view_in_the_next_loop(driver: str, postgres_server: PostgresServer) -> None:
    """A view whose settings stay on its connections goes on in the next loop, and may come first.

    A later checkout of the connection finds nothing of the view there.
    """
    url = f"postgresql+{driver}://" + postgres_server.url.partition("://")[2]
    pool = PoolSettings(size=1, max_overflow=0, timeout=5)
    factory = AsyncSqlAlchemySessionFactory(DatabaseSettings(url, pool=pool))
    view = with_options(factory, isolation_level="AUTOCOMMIT", read_only=True)
    is_read_only = text("SHOW default_transaction_read_only")

    async def look(sessions: AsyncSessionFactory[AsyncSession]) -> object:
        async with sessions() as session:
            return await session.scalar(is_read_only)

    for sessions in (view, view, factory, view, factory):
        assert asyncio.run(look(sessions)) == ("on" if sessions is view else "off")
    asyncio.run(factory.aclose())


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_server_sees_no_connection_of_a_loop_that_is_gone(
    driver: str, postgres_server: PostgresServer
) -> None:
    """The sockets of the former loop are closed, not only forgotten."""
    url = f"postgresql+{driver}://" + postgres_server.url.partition("://")[2]
    name = f"loops_{driver}"
    factory = AsyncSqlAlchemySessionFactory(DatabaseSettings(f"{url}?application_name={name}"))
    count = text("SELECT count(*) FROM pg_stat_activity WHERE application_name = :name")

    async def connections_there() -> int:
        async with factory() as session:
            return int((await session.execute(count, {"name": name})).scalar_one())

    async def settle() -> None:
        while await connections_there() != 1:  # noqa: ASYNC110 - the server takes a moment
            await asyncio.sleep(0.01)

    asyncio.run(ask_eight_times(factory))
    asyncio.run(asyncio.wait_for(settle(), 10))
    asyncio.run(factory.aclose())


def test_loop_that_still_runs(factory: AsyncSqlAlchemySessionFactory) -> None:
    """Use in a second loop beside the first is an error that says what to do, and harms nothing."""
    running, stop = threading.Event(), threading.Event()
    answers: list[int] = []

    async def live() -> None:
        answers.append(await ask(factory))
        running.set()
        await asyncio.to_thread(stop.wait)
        answers.append(await ask(factory))

    thread = threading.Thread(target=asyncio.run, args=(live(),))
    thread.start()
    running.wait()
    try:
        message = "in use in another event loop, which still runs.*make a factory for each loop"
        with pytest.raises(EventLoopError, match=message):
            asyncio.run(ask(factory))
        with pytest.raises(EventLoopError, match=message):
            asyncio.run(factory.aclose())
    finally:
        stop.set()
        thread.join()
    assert answers == [1, 1]
    assert asyncio.run(ask(factory)) == 1


def test_loop_that_rests(factory: AsyncSqlAlchemySessionFactory) -> None:
    """What is out in a loop that stopped, and goes on later, is closed when it comes back."""
    first, second = asyncio.new_event_loop(), asyncio.new_event_loop()
    session = factory()
    try:
        assert first.run_until_complete(session.scalar(ONE)) == 1
        assert first.run_until_complete(ask(factory)) == 1
        assert second.run_until_complete(ask(factory)) == 1
        assert factory.status().in_use == 1
        first.run_until_complete(session.close())
        assert factory.status().in_use == 0
        assert second.run_until_complete(ask(factory)) == 1
        assert factory.status().size == 1
        second.run_until_complete(factory.aclose())
    finally:
        first.close()
        second.close()


def test_session_that_outlives_its_loop(factory: AsyncSqlAlchemySessionFactory) -> None:
    """A connection that was out when its loop ended is let go of, and the pool is whole again."""

    async def leave_open() -> AsyncSession:
        session = factory()
        await session.execute(ONE)
        return session

    async def use(session: AsyncSession) -> None:
        await session.execute(ONE)

    left = asyncio.run(leave_open())
    assert asyncio.run(ask_eight_times(factory)) == [1] * 8
    assert factory.status().in_use == 0
    with pytest.raises(ClosedError, match="The event loop of this session of 'default' ended"):
        asyncio.run(use(left))
    asyncio.run(left.close())
    assert factory.status().size <= 3


def test_two_loops_find_the_same_loop_gone(factory: AsyncSqlAlchemySessionFactory) -> None:
    """Only one of two that come at once replaces the pool."""
    asyncio.run(ask(factory))
    pool = factory.engine.pool
    assert isinstance(pool, AsyncFairPool)
    new = factory._managed._replace(pool)
    assert factory._managed._replace(pool) is new


def test_memory_moves_from_loop_to_loop() -> None:
    """A database in memory is its connection, and keeps its rows in the next loop."""
    factory = AsyncSqlAlchemySessionFactory(DatabaseSettings("sqlite://"))

    async def fill() -> None:
        async with factory.begin() as session:
            await session.execute(text("CREATE TABLE t (a INTEGER)"))

    async def count() -> object:
        async with factory() as session:
            return await session.scalar(text("SELECT count(*) FROM t"))

    asyncio.run(fill())
    assert asyncio.run(count()) == 0
    asyncio.run(factory.aclose())


def test_what_is_closed_is_let_go_of() -> None:
    """To let go of a connection that is closed, or of none, is to do nothing."""

    class Closed:
        """A driver's connection whose transport is gone."""

        _transport = None

    connections.abandon(cast("DBAPIConnection", Closed()))
    connections.hang_up(cast("DBAPIConnection", Closed()))
    connections.abandon(None)
