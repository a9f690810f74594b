"""What is particular to the async fake: what it takes, its messages, and tasks."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from sqlalchemy import create_engine, event, text
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import sessionmaker
from sqlalchemy.util import await_only

from sessionfactory.testing.rollback._shared_connection import (
    ConcurrentUseError,
    InterleavedTransactionsError,
    NotUndoneError,
    SessionLeftOpenError,
)
from sessionfactory.testing.rollback.rollback_async import AsyncRollbackSessionFactory

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from sqlalchemy.ext.asyncio import AsyncConnection

    from sessionfactory import SqlAlchemySessionFactory

pytestmark = pytest.mark.asyncio

INSERT = text("INSERT INTO t VALUES (1)")
COUNT = text("SELECT count(*) FROM t")


class MySession(AsyncSession):
    """A session class of a user."""


@pytest_asyncio.fixture
async def engine(url: str, factory: SqlAlchemySessionFactory) -> AsyncGenerator[AsyncEngine]:
    del factory  # it makes the table
    made = create_async_engine(url.replace("sqlite:", "sqlite+aiosqlite:"))
    yield made
    await made.dispose()


async def test_sessions_are_those_of_the_factory(engine: AsyncEngine) -> None:
    """Class and options are the real factory's, and the session's connection is the fake's."""
    real = async_sessionmaker(engine, class_=MySession, expire_on_commit=False)
    async with AsyncRollbackSessionFactory(real) as fake:
        async with fake.begin() as session:
            await session.execute(INSERT)
            assert isinstance(session, MySession)
            assert not session.sync_session.expire_on_commit
            assert session.bind is await session.connection()
        async with fake.reader() as session:
            assert await session.scalar(COUNT) == 1


async def test_an_engine_will_do(engine: AsyncEngine) -> None:
    """Where there is no factory yet, its engine gives plain sessions."""
    async with AsyncRollbackSessionFactory(engine) as fake, fake.begin() as session:
        await session.execute(INSERT)
    async with engine.connect() as connection:
        assert await connection.scalar(COUNT) == 0


async def test_the_places_are_those_of_the_tasks_code(engine: AsyncEngine) -> None:
    """The message names lines of the user's code, though SQLAlchemy runs in a greenlet."""
    async with AsyncRollbackSessionFactory(engine) as fake:
        other = fake()
        with pytest.raises(InterleavedTransactionsError) as caught:
            async with fake.begin() as session:
                await session.execute(INSERT)
                await other.execute(INSERT)
        await other.close()

        assert str(caught.value).count(f"{__file__}:") == 4
        assert str(caught.value).count("test_the_places_are_those_of_the_tasks_code") == 4


async def test_a_transaction_begun_in_a_task_of_its_own_is_named(engine: AsyncEngine) -> None:
    """Where the code that awaits is not to be seen, the place of the opening is told."""
    with pytest.raises(InterleavedTransactionsError, match=r"begun at \S+ in \S+open_it cannot"):
        async with AsyncRollbackSessionFactory(engine) as fake:

            def open_it() -> AsyncSession:
                return fake()

            one, two = open_it(), open_it()
            await asyncio.create_task(one.connection())
            await asyncio.create_task(two.connection())
            await one.close()


async def test_a_second_task_at_the_same_time_is_told(engine: AsyncEngine) -> None:
    """The error names both tasks; the first one's call is not disturbed."""
    async with AsyncRollbackSessionFactory(engine) as fake:

        async def count() -> int | None:
            async with fake() as session:
                found: int | None = await session.scalar(COUNT)
                return found

        tasks = [asyncio.create_task(count(), name=name) for name in ("ada", "bob")]
        first, second = await asyncio.gather(*tasks, return_exceptions=True)

        assert first == 0
        assert isinstance(second, ConcurrentUseError)
        assert "The task 'bob' uses a rollback fake while the task 'ada' is inside" in str(second)


async def test_a_task_amid_its_commit_at_the_end_is_told(engine: AsyncEngine) -> None:
    """Tasks that the test did not wait for are named, and nothing comes of their commits."""
    inside, go = asyncio.Event(), asyncio.Event()

    def wait(*_: object) -> None:
        inside.set()
        await_only(go.wait())

    async def add() -> None:
        async with fake.begin() as session:
            await session.execute(INSERT)

    event.listen(engine.sync_engine, "release_savepoint", wait)
    fake = await AsyncRollbackSessionFactory(engine).__aenter__()
    task = asyncio.create_task(add(), name="ada")
    await inside.wait()
    with pytest.raises(ConcurrentUseError, match="while the task 'ada' is inside a call"):
        await fake.__aexit__(None, None, None)
    go.set()
    await asyncio.gather(task, return_exceptions=True)
    async with engine.connect() as connection:
        assert await connection.scalar(COUNT) == 0


async def test_a_session_left_open_is_told(engine: AsyncEngine) -> None:
    """The error comes at the block's end, after all is undone."""
    with pytest.raises(SessionLeftOpenError, match="test_a_session_left_open_is_told"):
        async with AsyncRollbackSessionFactory(engine) as fake:
            await fake().execute(INSERT)


async def test_a_task_cancelled_at_the_end_gives_its_connection_back(engine: AsyncEngine) -> None:
    """What the end of the block has begun is finished without a waiter."""

    async def block() -> None:
        async with AsyncRollbackSessionFactory(engine) as fake:
            async with fake.begin() as session:
                await session.execute(INSERT)
            me = asyncio.current_task()
            assert me is not None
            asyncio.get_running_loop().call_soon(me.cancel)

    others = asyncio.all_tasks()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(block())
    await asyncio.gather(*asyncio.all_tasks() - others)
    async with engine.connect() as connection:
        assert await connection.scalar(COUNT) == 0


async def test_a_connection_cannot_be_shared(engine: AsyncEngine) -> None:
    """Sessions that are bound to a connection are refused."""
    async with engine.connect() as connection:
        bound: async_sessionmaker[AsyncSession] = made_for(connection)
        with pytest.raises(TypeError, match="bound to a connection already"):
            await AsyncRollbackSessionFactory(bound).__aenter__()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (create_engine("sqlite://"), "the driver 'pysqlite' is for RollbackSessionFactory"),
        (sessionmaker(), "sessions of the class Session are for RollbackSessionFactory"),
        (async_sessionmaker(), "bound to no engine"),
    ],
    ids=["sync engine", "sync", "unbound"],
)
async def test_what_has_no_engine_for_it_is_refused_in_words(given: Any, told: str) -> None:
    """The error says what to give instead, or which fake to take."""
    with pytest.raises(TypeError, match=told):
        await AsyncRollbackSessionFactory(given).__aenter__()


async def test_the_engine_of_a_session_does_not_escape(engine: AsyncEngine) -> None:
    """What is done on a connection of the engine itself could not be undone: it is refused."""
    async with AsyncRollbackSessionFactory(engine) as fake, fake.begin() as session:
        connection = await session.connection()
        with pytest.raises(NotUndoneError):
            async with connection.engine.begin():
                pytest.fail("it is refused")
        with pytest.raises(NotUndoneError):
            await session.run_sync(lambda bare: bare.get_bind().engine.connect())


def made_for(connection: AsyncConnection) -> async_sessionmaker[AsyncSession]:
    """Return what a test suite's own recipe would make."""
    return async_sessionmaker(connection)
