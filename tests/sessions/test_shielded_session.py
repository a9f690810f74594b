"""The sessions of an async factory, which finish what ends a transaction."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session, SessionTransaction
from sqlalchemy.util.concurrency import await_only
from typing_extensions import override

from sessionfactory import AsyncSqlAlchemySessionFactory, DatabaseSettings, commit_outcome
from sessionfactory.pool.shielded import Ending
from sessionfactory.sessions.shielded_session import lasting

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

pytestmark = pytest.mark.asyncio
WRITE = text("INSERT INTO t VALUES (1)")
COUNT = text("SELECT count(*) FROM t")


class OwnSession(AsyncSession):
    """A session of the user's, who has the last word."""

    seen: list[object]

    @override
    async def commit(self) -> None:
        self.seen = [isinstance(asyncio.current_task(), Ending)]
        await super().commit()
        self.seen.append("committed")


@pytest_asyncio.fixture
async def factory(url: str) -> AsyncGenerator[AsyncSqlAlchemySessionFactory[OwnSession]]:
    """A factory of the user's sessions, with a table."""
    settings = DatabaseSettings(url)
    async with AsyncSqlAlchemySessionFactory(settings, session_class=OwnSession) as made:
        async with made.begin() as session:
            await session.execute(text("CREATE TABLE t (a INTEGER)"))
        yield made


async def test_what_the_user_overrides(factory: AsyncSqlAlchemySessionFactory[OwnSession]) -> None:
    """It runs, in the task that calls it, and what it calls of SQLAlchemy's is ours."""
    async with factory() as session:
        await session.execute(WRITE)
        await session.commit()
        assert session.seen == [False, "committed"]
        assert await session.scalar(COUNT) == 1


async def test_its_name(factory: AsyncSqlAlchemySessionFactory[OwnSession]) -> None:
    """The class is a kind of the user's, looks like it, and is the same for every session."""
    async with factory() as session, factory.reader() as reader:
        assert isinstance(session, OwnSession)
        assert type(session) is type(reader)
        assert repr(type(session)) == repr(OwnSession)
        assert type(session).__doc__ == OwnSession.__doc__
    assert lasting(AsyncSession).__name__ == "AsyncSession"


async def test_savepoints(factory: AsyncSqlAlchemySessionFactory[OwnSession]) -> None:
    """Savepoints are released and rolled back, as blocks and by calls."""
    async with factory() as session, session.begin():
        async with session.begin_nested():
            await session.execute(WRITE)
        savepoint = await session.begin_nested()
        await session.execute(WRITE)
        await savepoint.rollback()
        savepoint = await session.begin_nested()
        await session.execute(WRITE)
        await savepoint.commit()
        assert await session.scalar(COUNT) == 2
    async with factory() as session:
        assert await session.scalar(COUNT) == 2


async def test_transactions_by_calls(factory: AsyncSqlAlchemySessionFactory[OwnSession]) -> None:
    """A transaction is committed, rolled back or reset by a call as well."""
    async with factory() as session:
        transaction = await session.begin()
        await session.execute(WRITE)
        await transaction.commit()
        transaction = await session.begin()
        await session.execute(WRITE)
        await transaction.rollback()
        await session.execute(WRITE)
        await session.rollback()
        await session.execute(WRITE)
        await session.reset()
        assert await session.scalar(COUNT) == 1
        await session.close()
        assert factory.status().in_use == 0


async def test_savepoint_is_no_commit(factory: AsyncSqlAlchemySessionFactory[OwnSession]) -> None:
    """The release of a savepoint that is cancelled says nothing of a COMMIT."""

    async def release() -> None:
        async with factory() as session, session.begin(), session.begin_nested():
            await session.execute(WRITE)
            task = asyncio.current_task()
            assert task is not None
            task.cancel()

    with pytest.raises(asyncio.CancelledError) as caught:
        await asyncio.create_task(release())
    assert commit_outcome(caught.value) is None
    assert factory.status().in_use == 0


async def test_what_listens_may_await(url: str) -> None:
    """Who listens to the beginning of a transaction may wait for something."""
    begun: list[SessionTransaction] = []

    class ListenedSession(Session):
        """A session that is listened to."""

    class OwnAsyncSession(AsyncSession):
        """Its async half."""

        sync_session_class = ListenedSession

    @event.listens_for(ListenedSession, "after_transaction_create")
    def note(_: Session, transaction: SessionTransaction) -> None:
        await_only(asyncio.sleep(0))
        begun.append(transaction)

    settings = DatabaseSettings(url)
    async with (
        AsyncSqlAlchemySessionFactory(settings, session_class=OwnAsyncSession) as factory,
        factory.begin() as session,
    ):
        assert begun == [session.sync_session.get_transaction()]
