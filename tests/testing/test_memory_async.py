"""``AsyncInMemorySessionFactory`` as its users see it."""

from __future__ import annotations

import asyncio
import gc
import threading
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from sqlalchemy import MetaData, func, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from sessionfactory import (
    ClosedError,
    DatabaseSettings,
    PoolExhaustedError,
    PoolSettings,
    ReadOnlyError,
)
from sessionfactory.testing.memory._image import IsolationError
from sessionfactory.testing.memory.memory_async import AsyncInMemorySessionFactory
from tests.support.isolated import Base, Player, one_team

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from sessionfactory import AsyncSessionFactory


class OwnSession(AsyncSession):
    """A session class of the user's own."""


@pytest_asyncio.fixture
async def sessions() -> AsyncGenerator[AsyncInMemorySessionFactory]:
    """A factory with one team and one player."""
    async with AsyncInMemorySessionFactory(Base.metadata, seed=one_team) as made:
        yield made


async def add_player(sessions: AsyncSessionFactory) -> None:
    async with sessions.begin() as session:
        session.add(Player())


async def players(sessions: AsyncSessionFactory) -> int:
    async with sessions() as session:
        return await session.scalar(select(func.count()).select_from(Player)) or 0


@pytest.mark.asyncio
async def test_is_a_factory(sessions: AsyncInMemorySessionFactory) -> None:
    """It is a session factory like the real one, reader, ping and status included."""
    await add_player(sessions)
    assert await players(sessions) == 2
    assert await players(sessions.reader) == 2
    with pytest.raises(ReadOnlyError):
        await add_player(sessions.reader)
    assert (await sessions.ping()).ok
    assert sessions.status().size == 1
    assert repr(sessions) == "AsyncInMemorySessionFactory(name='memory', url='sqlite://')"


@pytest.mark.asyncio
async def test_reset_60_times(sessions: AsyncInMemorySessionFactory) -> None:
    """Rows, tables and a pragma of a test are gone after each reset, on the same engine."""
    engine = sessions.engine
    for _ in range(60):
        await add_player(sessions)
        async with sessions.begin() as session:
            await session.execute(text("CREATE TABLE extra (a INTEGER)"))
        async with sessions() as session:
            await session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
            await session.execute(text("PRAGMA foreign_keys = OFF"))
        assert await players(sessions) == 2
        await sessions.reset()
        assert await players(sessions) == 1
    assert sessions.engine is engine
    assert sessions.status().size == 1
    with pytest.raises(IntegrityError):
        async with sessions.begin() as session:
            session.add(Player(team_id=7))


@pytest.mark.asyncio
async def test_begins_its_transactions(sessions: AsyncInMemorySessionFactory) -> None:
    """A savepoint that is released inside a transaction is rolled back with it."""
    with pytest.raises(ZeroDivisionError):
        async with sessions.begin() as session:
            async with session.begin_nested():
                session.add(Player())
            raise ZeroDivisionError
    assert await players(sessions) == 1


@pytest.mark.asyncio
async def test_reset_removes_temporary_tables(sessions: AsyncInMemorySessionFactory) -> None:
    """Temporary tables do not survive a reset."""
    async with sessions.begin() as session:
        await session.execute(text("CREATE TEMP TABLE t (a INT)"))
    await sessions.reset()
    async with sessions() as session:
        assert len((await session.execute(text("PRAGMA database_list"))).all()) == 1


@pytest.mark.asyncio
async def test_reset_with_an_open_session(sessions: AsyncInMemorySessionFactory) -> None:
    """A reset is refused while a session has the connection."""
    async with sessions.begin() as session:
        session.add(Player())
        await session.flush()
        with pytest.raises(IsolationError, match=r"while a session is open.* in use by: .*task "):
            await sessions.reset()
    assert await players(sessions) == 2


@pytest.mark.asyncio
async def test_lost_connection(sessions: AsyncInMemorySessionFactory) -> None:
    """A test that closes the connection under the fake is told, and a reset mends it."""
    async with sessions() as session:
        await (await session.connection()).invalidate()
    with pytest.raises(IsolationError, match=r"was closed, and the database was lost with it"):
        await players(sessions)
    await sessions.reset()
    assert await players(sessions) == 1


@pytest.mark.asyncio
async def test_tasks_take_turns(sessions: AsyncInMemorySessionFactory) -> None:
    """Read-modify-writes of eight tasks lose nothing."""

    async def add_next() -> None:
        async with sessions.begin() as session:
            number = await session.scalar(text("SELECT max(id) FROM player"))
            session.add(Player(id=number + 1))

    await asyncio.gather(*(add_next() for _ in range(40)))
    assert await players(sessions) == 41


@pytest.mark.asyncio
async def test_nested_sessions() -> None:
    """A session inside another's transaction is told who has the connection."""
    settings = DatabaseSettings("sqlite://", pool=PoolSettings(timeout=0.05))
    async with AsyncInMemorySessionFactory(
        Base.metadata, settings=settings, session_class=OwnSession, name="fake"
    ) as sessions:
        async with sessions.begin() as session:
            assert isinstance(session, OwnSession)
            await session.connection()
            with pytest.raises(PoolExhaustedError, match="or use a file"):
                await players(sessions)
        assert await players(sessions) == 0


@pytest.mark.asyncio
async def test_close() -> None:
    """A closed factory opens nothing, cuts what its closer holds, and leaves no thread."""
    before = threading.enumerate()
    sessions = AsyncInMemorySessionFactory(MetaData())
    session = sessions()
    await session.connection()
    (holder,) = await sessions.aclose()
    assert holder.owner.startswith("task ")
    with pytest.raises(ClosedError):
        await session.execute(text("SELECT 1"))
    await session.close()
    with pytest.raises(ClosedError):
        sessions()
    with pytest.raises(ClosedError):
        await sessions.reset()
    assert (await sessions.ping()).state == "closed"
    assert await sessions.aclose() == ()
    for thread in set(threading.enumerate()) - set(before):
        thread.join(5)  # aiosqlite's says that it is closed before it has ended
        assert not thread.is_alive()


@pytest.mark.asyncio
async def test_close_waits_for_other_tasks(sessions: AsyncInMemorySessionFactory) -> None:
    """Closing waits for a transaction of another task, which commits."""
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        async with sessions.begin() as session:
            await session.connection()
            begun.set()
            await go_on.wait()

    task = asyncio.create_task(work())
    await begun.wait()
    closing = asyncio.create_task(sessions.aclose())
    go_on.set()
    assert await closing == ()
    await task


@pytest.mark.asyncio
async def test_not_closed() -> None:
    """A factory that is collected while its connection is open gives a warning."""
    sessions = AsyncInMemorySessionFactory(MetaData())
    async with sessions() as session:
        await session.connection()
    await sessions.engine.dispose()
    async with sessions() as session:
        with pytest.raises(IsolationError):
            await session.connection()
    await sessions.reset()
    engine = sessions.engine
    with pytest.warns(
        ResourceWarning, match=r"AsyncInMemorySessionFactory\(name='memory', .*\) was"
    ):
        del sessions
        gc.collect()
    await engine.dispose()


def test_no_metadata() -> None:
    """A declarative base in place of metadata is refused without another warning."""
    with pytest.raises(TypeError, match=r"say Base\.metadata"):
        AsyncInMemorySessionFactory(Base)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    gc.collect()
