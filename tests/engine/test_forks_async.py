"""A forked process and the connections of its parent: the async half."""

from __future__ import annotations

import asyncio
import gc
import os
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from sessionfactory import (
    AsyncSqlAlchemySessionFactory,
    ClosedError,
    DatabaseSettings,
    ForkedConnectionError,
    PoolSettings,
)
from tests.support.child import Child, in_child

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from sessionfactory.testing import MariaDBServer, PostgresServer

REFUSED = (
    r"forked while a session of 'default' was in use.*\(taken at .*test_forks_async.py:\d+ in "
)
DRIVERS = ("psycopg", "asyncpg", "aiomysql")
SEQUENCE = {
    "postgresql": "generate_series(1, 1000) AS n",
    "mysql": "(SELECT seq AS n FROM seq_1_to_1000) AS s",
}


@pytest.fixture(params=DRIVERS)
def url(request: pytest.FixtureRequest) -> str:
    """The URL of a real server, with each asynchronous driver in turn."""
    if request.param == "aiomysql":
        mariadb: MariaDBServer = request.getfixturevalue("mariadb_server")
        return mariadb.async_url
    postgres: PostgresServer = request.getfixturevalue("postgres_server")
    return postgres.url_for(driver=request.param)


@pytest.fixture
def factory(url: str) -> AsyncSqlAlchemySessionFactory:
    """A factory of three connections, which the test closes in its loop."""
    settings = DatabaseSettings(url, pool=PoolSettings(size=3, max_overflow=0, timeout=10))
    return AsyncSqlAlchemySessionFactory(settings)


async def create(factory: AsyncSqlAlchemySessionFactory) -> None:
    async with factory.begin() as session:
        await session.execute(text("DROP TABLE IF EXISTS forked"))
        await session.execute(text("CREATE TABLE forked (a integer)"))


async def rows(factory: AsyncSqlAlchemySessionFactory) -> list[int]:
    async with factory() as session:
        return list(await session.scalars(text("SELECT a FROM forked ORDER BY a")))


async def insert(session: AsyncSession, number: int) -> None:
    await session.execute(text("INSERT INTO forked VALUES (:number)"), {"number": number})


async def server_process(session: AsyncSession) -> int:
    mysql = session.get_bind().dialect.name == "mysql"
    function = "connection_id" if mysql else "pg_backend_pid"
    return await session.scalar(text(f"SELECT {function}()")) or 0


async def echo(factory: AsyncSqlAlchemySessionFactory) -> set[int]:
    """Have the server say tokens again, in six tasks; return which connections did."""
    used: set[int] = set()

    async def ask(task: int) -> None:
        for turn in range(5):
            token = f"{os.getpid()}-{task}-{turn}"
            async with factory.begin() as session:
                used.add(await server_process(session))
                said = await session.scalar(
                    text("SELECT CAST(:token AS char(40))"), {"token": token}
                )
                assert said is not None
                assert said.strip() == token

    await asyncio.gather(*map(ask, range(6)))
    return used


def test_idle_connections(factory: AsyncSqlAlchemySessionFactory) -> None:
    """Workers of a server that loaded the program before it forked get their own answers."""
    inherited = asyncio.run(echo(factory))
    children = [Child(lambda: asyncio.run(echo(factory))) for _ in range(3)]
    mine = asyncio.run(echo(factory))
    theirs = [child.outcome() for child in children]
    assert not mine & set[int]().union(*theirs)
    assert not set[int]().union(*theirs) & inherited
    assert sum(map(len, theirs)) == len(set[int]().union(*theirs))
    asyncio.run(factory.aclose())


def test_loop_that_runs(factory: AsyncSqlAlchemySessionFactory) -> None:
    """Children forked out of a running loop have loops of their own; this one goes on."""

    async def work() -> None:
        inherited = await echo(factory)
        children = [Child(lambda: asyncio.run(echo(factory))) for _ in range(3)]
        assert await echo(factory) == inherited
        theirs = [child.outcome() for child in children]
        assert not set[int]().union(*theirs) & inherited
        assert await echo(factory) == inherited
        await factory.aclose()

    asyncio.run(work())


def test_in_a_transaction(factory: AsyncSqlAlchemySessionFactory) -> None:
    """The child of a process in a transaction raises; the parent commits all that it wrote."""

    async def use(session: AsyncSession) -> None:
        with pytest.raises(ForkedConnectionError, match=REFUSED):
            await insert(session, 3)
        await session.rollback()
        await session.close()
        async with factory.begin() as own:
            await insert(own, 4)
        with pytest.raises(ClosedError):  # a session like any other
            await insert(session, 5)

    async def work() -> None:
        await create(factory)
        async with factory() as session:
            await insert(session, 1)
            in_child(lambda: asyncio.run(use(session)))
            await insert(session, 2)
            await session.commit()
        assert await rows(factory) == [1, 2, 4]
        await factory.aclose()

    asyncio.run(work())


@pytest.mark.parametrize("error", [None, KeyError("of the child")])
def test_end_of_a_block(
    factory: AsyncSqlAlchemySessionFactory,
    error: BaseException | None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The child leaves the parent's block: to commit raises, to roll back is silent."""

    async def work() -> None:
        await create(factory)
        scope = factory.begin()
        session = await scope.__aenter__()
        await insert(session, 1)

        async def leave() -> None:
            if error is not None:
                await scope.__aexit__(type(error), error, None)
            else:
                with pytest.raises(ForkedConnectionError, match=REFUSED):
                    await scope.__aexit__(None, None, None)
            assert caplog.records == []

        in_child(lambda: asyncio.run(leave()))
        await insert(session, 2)
        await scope.__aexit__(None, None, None)
        assert await rows(factory) == [1, 2]
        await factory.aclose()

    asyncio.run(work())


def test_dropped_sessions(
    factory: AsyncSqlAlchemySessionFactory, caplog: pytest.LogCaptureFixture
) -> None:
    """A session that the child drops is dropped without a word."""

    async def work() -> None:
        await create(factory)
        sessions = [factory()]
        await insert(sessions[0], 1)

        def drop() -> None:
            sessions.clear()
            gc.collect()
            assert caplog.records == []

        in_child(drop)
        await sessions[0].commit()
        assert await rows(factory) == [1]
        await sessions[0].close()
        await factory.aclose()

    asyncio.run(work())


def test_open_result(factory: AsyncSqlAlchemySessionFactory) -> None:
    """The child cannot read on in a result that streams; the parent reads every row of it."""
    numbers = f"SELECT n, repeat('x', 1000) FROM {SEQUENCE[factory.engine.dialect.name]}"

    async def work() -> None:
        async with factory() as session:
            options = {"max_row_buffer": 10}
            result = await session.stream(text(numbers), execution_options=options)
            first = await result.fetchmany(10)

            async def read_on() -> int:
                read = 10
                with pytest.raises(ForkedConnectionError, match=REFUSED):
                    async for _ in result:
                        read += 1
                await session.close()
                return read

            assert in_child(lambda: asyncio.run(read_on())) < 1000
            rest = [row async for row in result]
            assert [row[0] for row in (*first, *rest)] == list(range(1, 1001))
        await factory.aclose()

    asyncio.run(work())
