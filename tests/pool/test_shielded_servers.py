"""Transactions that end under cancellation, on real servers: finished, told of, or hung up."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError, IntegrityError

from sessionfactory import (
    AsyncSqlAlchemySessionFactory,
    ClosedError,
    CommitUncertainError,
    DatabaseSettings,
    PoolSettings,
    commit_outcome,
)
from sessionfactory.drivers import sqlalchemy_private
from sessionfactory.pool import shielded
from sessionfactory.testing import FaultProxy
from tests.support.held_commits import Control, Ended, cancel_oneself, cancelled, until_sent

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine, Generator

    from sqlalchemy.orm import Session

    from sessionfactory.testing import MariaDBServer, PostgresServer

    Factory = AsyncSqlAlchemySessionFactory
    Way = Callable[[AsyncSqlAlchemySessionFactory, int], Coroutine[None, None, None]]

pytestmark = pytest.mark.asyncio
ONE = text("SELECT 1")
SIZE = 2


async def begin(factory: AsyncSqlAlchemySessionFactory, number: int) -> None:
    """Write in ``factory.begin()``."""
    async with factory.begin() as session:
        session.add(Ended(id=number))


async def commit(factory: AsyncSqlAlchemySessionFactory, number: int) -> None:
    """Write, and commit explicitly."""
    async with factory() as session:
        session.add(Ended(id=number))
        await session.commit()


async def begin_session(factory: AsyncSqlAlchemySessionFactory, number: int) -> None:
    """Write in ``session.begin()``."""
    async with factory() as session, session.begin():
        session.add(Ended(id=number))


WAYS = (begin, commit, begin_session)
# Every way with every driver where it is quick, and a way for each driver where it is not.
PAIRED = pytest.mark.parametrize(
    ("control", "way"),
    [("psycopg", begin), ("asyncpg", commit), ("aiomysql", begin_session)],
    indirect=["control"],
)
ON_POSTGRES = pytest.mark.parametrize("control", ["psycopg", "asyncpg"], indirect=True)
EVERY_WAY = pytest.mark.parametrize("way", WAYS)


@pytest.fixture(params=["psycopg", "asyncpg", "aiomysql"])
def control(request: pytest.FixtureRequest) -> Generator[Control]:
    """A server with each asynchronous driver in turn."""
    name = "mariadb_server" if request.param == "aiomysql" else "postgres_server"
    server: PostgresServer | MariaDBServer = request.getfixturevalue(name)
    made = Control(server.url_for(driver=request.param))
    yield made
    made.close()


@pytest.fixture(scope="module")
def postgres_proxy(postgres_server: PostgresServer) -> Generator[FaultProxy]:
    """A proxy before PostgreSQL, for tests that restore it."""
    with FaultProxy(postgres_server.url) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def mariadb_proxy(mariadb_server: MariaDBServer) -> Generator[FaultProxy]:
    """A proxy before MariaDB, for tests that restore it."""
    with FaultProxy(mariadb_server.url) as proxy:
        yield proxy


@pytest.fixture
def proxy(control: Control, request: pytest.FixtureRequest) -> FaultProxy:
    """The proxy before the server at hand."""
    is_mariadb = control.url.get_backend_name() == "mysql"
    found: FaultProxy = request.getfixturevalue("mariadb_proxy" if is_mariadb else "postgres_proxy")
    return found


@asynccontextmanager
async def whole(control: Control, proxy: FaultProxy | None = None) -> AsyncGenerator[Factory]:
    """Give a factory of two connections, and require both to be there and at rest afterwards."""
    pool = PoolSettings(size=SIZE, max_overflow=0, timeout=20)
    url = control.url if proxy is None else control.url.set(host="127.0.0.1", port=proxy.port)
    async with AsyncSqlAlchemySessionFactory(DatabaseSettings(url, pool=pool)) as factory:
        yield factory
        assert factory.status().in_use == 0
        sessions = [factory() for _ in range(SIZE)]
        assert [await session.scalar(ONE) for session in sessions] == [1] * SIZE
        for session in sessions:
            await session.close()
        async with asyncio.timeout(20):
            while control.left_open():  # noqa: ASYNC110 - a server takes a moment to see it
                await asyncio.sleep(0.11)  # InnoDB repeats its answer to whom asks within 0.1 s


@EVERY_WAY
async def test_commit_is_finished(control: Control, way: Way) -> None:
    """A COMMIT that is under way is waited for, however often its task is cancelled."""
    async with whole(control) as factory:
        control.hold_commits_of(factory)
        task = asyncio.create_task(way(factory, 1))
        await control.until_held_up()
        for _ in range(3):
            task.cancel()
            await asyncio.sleep(0.01)
            assert not task.done()
        control.release()
        error = await cancelled(task)
        assert commit_outcome(error) == "committed"
        assert error.__notes__ == ["The COMMIT that was under way has succeeded"]
        assert error.__cause__ is None
    assert control.rows() == [1]


@ON_POSTGRES
@EVERY_WAY
async def test_commit_that_fails(control: Control, way: Way) -> None:
    """A COMMIT that fails by itself says so, beside the cancellation."""
    async with whole(control) as factory:
        control.hold_commits_of(factory)
        task = asyncio.create_task(way(factory, -1))
        await control.until_held_up()
        task.cancel()
        control.release()
        error = await cancelled(task)
        assert commit_outcome(error) == "rolled back"
        assert isinstance(error.__cause__, IntegrityError)
        assert error.__notes__ == ["The transaction was rolled back"]
    assert control.rows() == []


@EVERY_WAY
async def test_flush_that_waits(control: Control, way: Way) -> None:
    """Before the COMMIT is sent, a cancellation goes through at once, and nothing is committed."""
    async with whole(control) as factory, asyncio.timeout(20):
        control.hold_writes()
        task = asyncio.create_task(way(factory, 1))
        await control.until_held_up()
        task.cancel()
        error = await cancelled(task)
        assert commit_outcome(error) == "rolled back"
        control.release()
    assert control.rows() == []


@ON_POSTGRES
async def test_server_that_goes_down(control: Control) -> None:
    """Where the server ends during a COMMIT, its outcome is unknown."""
    async with whole(control) as factory:
        control.hold_commits_of(factory)
        task = asyncio.create_task(begin(factory, 1))
        await control.until_held_up()
        task.cancel()
        control.kill_held_up()
        error = await cancelled(task)
        assert commit_outcome(error) == "uncertain"
        assert isinstance(error.__cause__, CommitUncertainError)
        assert isinstance(error.__cause__.__cause__, DBAPIError)
        control.release()


@PAIRED
@pytest.mark.parametrize("arrives", [True, False])
async def test_answer_that_does_not_come(
    control: Control, proxy: FaultProxy, way: Way, monkeypatch: pytest.MonkeyPatch, *, arrives: bool
) -> None:
    """Past the deadline the connection is hung up, and the error has the outcome unknown."""
    monkeypatch.setattr(shielded, "GRACE", 0.1)
    monkeypatch.setattr(shielded, "HUNG_UP", 20)
    async with whole(control, proxy) as factory:
        if arrives:
            control.hold_commits_of(factory)
        else:
            control.before_commit(factory, proxy.black_hole)
        task = asyncio.create_task(way(factory, 1))
        await (control.until_held_up() if arrives else until_sent())
        proxy.black_hole()
        control.release()
        task.cancel()
        error = await cancelled(task)
        assert commit_outcome(error) == "uncertain"
        assert error.__notes__ == ["It is unknown whether the COMMIT has happened"]
        assert isinstance(error.__cause__, CommitUncertainError)
        assert "no answer came within 0.1 s" in str(error.__cause__)
        assert isinstance(error.__cause__.__cause__, DBAPIError)
        assert control.rows() == [1] * arrives
        proxy.restore()


@pytest.mark.parametrize("control", ["asyncpg", "aiomysql"], indirect=True)
async def test_flush_into_silence(
    control: Control, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flush whose answer does not come is hung up, too, and nothing is committed."""
    monkeypatch.setattr(shielded, "GRACE", 0.1)
    monkeypatch.setattr(shielded, "HUNG_UP", 20)
    async with whole(control, proxy) as factory:
        control.hold_writes()
        task = asyncio.create_task(begin(factory, 1))
        await control.until_held_up()
        proxy.black_hole()
        task.cancel()
        error = await cancelled(task)
        assert commit_outcome(error) == "rolled back"
        control.release()
        proxy.restore()
    assert control.rows() == []


@ON_POSTGRES
async def test_connections_of_a_session(control: Control) -> None:
    """What hangs up sees a session's connection, in a savepoint too, and neither opens one."""
    async with whole(control) as factory, factory() as session:
        assert sqlalchemy_private.of_session(session.sync_session) == []
        await session.execute(ONE)
        async with session.begin_nested():
            (found,) = sqlalchemy_private.of_session(session.sync_session)
            driver = (await (await session.connection()).get_raw_connection()).driver_connection
            assert found.driver_connection is driver
        await session.invalidate()
        assert sqlalchemy_private.of_session(session.sync_session) == []


@pytest.mark.parametrize("control", ["psycopg"], indirect=True)
async def test_error_after_the_commit(control: Control) -> None:
    """What fails once the COMMIT has succeeded does not make it undone."""
    async with whole(control) as factory:

        async def write() -> None:
            async with factory.begin() as session:
                event.listen(session.sync_session, "after_commit", fail)
                session.add(Ended(id=1))

        def fail(_: Session) -> None:
            raise LookupError

        control.hold_commits_of(factory)
        task = asyncio.create_task(write())
        await control.until_held_up()
        task.cancel()
        control.release()
        error = await cancelled(task)
        assert commit_outcome(error) == "committed"
        assert isinstance(error.__cause__, LookupError)
    assert control.rows() == [1]


@pytest.mark.parametrize("control", ["psycopg"], indirect=True)
async def test_closed_before_the_commit(control: Control) -> None:
    """A COMMIT on a connection that ``aclose()`` has cut off was not sent."""
    factory = AsyncSqlAlchemySessionFactory(DatabaseSettings(control.url))

    async def write() -> None:
        async with factory.begin() as session:
            session.add(Ended(id=1))
            await session.flush()
            await factory.aclose(timeout=0)
            cancel_oneself()

    error = await cancelled(asyncio.create_task(write()))
    assert commit_outcome(error) == "rolled back"
    assert isinstance(error.__cause__, ClosedError)
    assert control.rows() == []
