"""One ``AsyncSession`` in several tasks: who is let in, who is refused, how it changes hands."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import pytest
import pytest_asyncio
from sqlalchemy import event, insert, select, text
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from sessionfactory import SharedSessionError
from sessionfactory.sessions.guarded_session import guarded

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Coroutine
    from pathlib import Path

pytestmark = pytest.mark.asyncio

ONE: Final = text("SELECT 1")


class Base(DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "shared_async_item"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)


ALL: Final = select(Item.id)


@pytest_asyncio.fixture(params=["psycopg", "asyncpg", "aiosqlite"])
async def engine(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[AsyncEngine]:
    """An engine of each driver, with an empty table."""
    if request.param == "aiosqlite":
        url = f"sqlite+aiosqlite:///{tmp_path / 'shared.db'}"
    else:
        url = request.getfixturevalue("postgres_server").url_for(driver=request.param)
    made = create_async_engine(url)
    async with made.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    yield made
    async with made.begin() as connection:
        await connection.run_sync(Base.metadata.drop_all)
    await made.dispose()


@pytest.fixture
def sessions(engine: AsyncEngine) -> async_sessionmaker[AsyncSession]:
    """Makes guarded sessions."""
    return async_sessionmaker(engine, sync_session_class=guarded(Session), expire_on_commit=False)


@pytest_asyncio.fixture
async def session(sessions: async_sessionmaker[AsyncSession]) -> AsyncGenerator[AsyncSession]:
    """A session in a transaction, of the fixture's own task."""
    async with sessions() as session:
        await session.execute(insert(Item).values(id=1))
        yield session


@pytest_asyncio.fixture
async def scope(sessions: async_sessionmaker[AsyncSession]) -> AsyncGenerator[AsyncSession]:
    """A session in a scope that another task begins, and maybe a third one ends."""
    async with sessions.begin() as session:
        yield session


async def in_task(work: Coroutine[Any, Any, object], name: str = "other") -> None:
    """Do something in a task of its own, and wait for it."""
    await asyncio.create_task(work, name=name)


async def insert_item(session: AsyncSession, number: int) -> int:
    """Insert a row, and say so."""
    await session.execute(insert(Item).values(id=number))
    return number


async def one_inside(session: AsyncSession) -> asyncio.Task[int]:
    """Return a task that waits for the database, inside a call."""
    called = asyncio.Event()
    event.listen(session.sync_session, "do_orm_execute", lambda *_: called.set(), once=True)
    first = asyncio.create_task(insert_item(session, 2), name="first")
    await called.wait()
    assert not first.done()
    return first


async def test_gather_over_one_session_is_refused(session: AsyncSession) -> None:
    """One task works, the others are told by name, and the one's work is whole."""
    tasks = [asyncio.create_task(insert_item(session, n), name=f"job {n}") for n in (2, 3, 4)]
    worked, *refused = await asyncio.gather(*tasks, return_exceptions=True)
    await session.commit()

    assert worked == 2
    for n, error in zip((3, 4), refused, strict=True):
        assert isinstance(error, SharedSessionError)
        assert str(error) == (
            f"The task 'job {n}' calls execute() of a session while the task 'job 2' is inside its"
            " execute(). A session is for one task at a time: inject the factory, open one session"
            " per task."
        )
    assert set(await session.scalars(ALL)) == {1, 2}


@pytest.mark.parametrize("call", ["add", "begin", "commit", "flush", "rollback", "scope"])
async def test_a_call_while_another_task_is_inside_is_refused(
    session: AsyncSession, call: str
) -> None:
    """Whether the call would wait for the database or not; SQLAlchemy is not even asked."""
    first = await one_inside(session)
    with pytest.raises(SharedSessionError, match="while the task 'first' is inside its execute"):
        if call == "add":
            session.add(Item(id=3))
        elif call == "begin":
            await session.begin()
        elif call == "scope":
            async with session.begin_nested():
                pass
        else:
            await getattr(session, call)()
    assert await first == 2
    await session.commit()

    assert set(await session.scalars(ALL)) == {1, 2}


async def test_a_session_goes_from_one_task_to_another(session: AsyncSession) -> None:
    """A fixture's to the test, the test's to ``wait_for`` and to tasks that follow one another."""
    assert await asyncio.wait_for(insert_item(session, 2), 30) == 2
    await in_task(insert_item(session, 3))
    await in_task(session.commit())

    assert set(await session.scalars(ALL)) == {1, 2, 3}


async def test_a_scope_goes_from_one_task_to_another(scope: AsyncSession) -> None:
    """The fixture ends the transaction that this test has worked in."""
    assert await asyncio.wait_for(insert_item(scope, 1), 30) == 1
    scope.add(Item(id=2))


async def test_the_end_of_a_scope_is_a_call(sessions: async_sessionmaker[AsyncSession]) -> None:
    """Another task is refused while the first commits."""
    async with sessions() as session:
        committing = asyncio.Event()
        # It runs in the greenlet of the call, when the transaction is about to end.
        event.listen(session.sync_session, "before_commit", lambda *_: committing.set())

        async def scope() -> None:
            async with session.begin():
                await insert_item(session, 1)

        first = asyncio.create_task(scope(), name="first")
        await committing.wait()
        with pytest.raises(SharedSessionError, match=r"the task 'first' is inside its commit\(\)"):
            await session.execute(ONE)
        await first

        assert list(await session.scalars(ALL)) == [1]


async def test_nested_calls_are_one_visit(session: AsyncSession) -> None:
    """What a listener does, and a function under ``run_sync``, is the same task's."""

    @event.listens_for(session.sync_session, "before_commit")
    def add_another(sync_session: Session) -> None:
        sync_session.add(Item(id=3))
        sync_session.flush()

    def work(sync_session: Session) -> None:
        sync_session.add(Item(id=2))
        assert set(sync_session.scalars(ALL)) == {1, 2}
        sync_session.commit()

    await session.run_sync(work)

    assert set(await session.scalars(ALL)) == {1, 2, 3}


async def test_a_task_that_is_cancelled_inside_leaves(
    sessions: async_sessionmaker[AsyncSession],
) -> None:
    """The session is free for who cleans up after it."""
    async with sessions() as session:
        first = await one_inside(session)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        await session.invalidate()

        assert list(await session.scalars(ALL)) == []


def me() -> asyncio.Task[object]:
    """Return the running task."""
    task = asyncio.current_task()
    assert task is not None
    return task
