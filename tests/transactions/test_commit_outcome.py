"""What an error reports of the COMMIT that was under way."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from typing_extensions import override

from sessionfactory import (
    AfterCommitError,
    AsyncSqlAlchemySessionFactory,
    CommitRolledBackError,
    CommitUncertainError,
    DatabaseSettings,
    SqlAlchemySessionFactory,
    commit_outcome,
    on_commit,
    run_in_transaction_async,
)
from tests.support.payments import PAY, fail_at_commit
from tests.support.ways import POSTGRESQL, Way

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from sessionfactory.testing import FaultProxy, PostgresServer

ways = pytest.mark.parametrize("way", POSTGRESQL, ids=str)


@ways
def test_a_lost_commit_is_uncertain(way: Way, proxy: FaultProxy) -> None:
    """The error of a transaction whose COMMIT may have succeeded has that outcome."""

    def work(session: Session) -> None:
        session.execute(PAY)
        proxy.cut("after", "COMMIT")

    with pytest.raises(CommitUncertainError) as caught:
        way.run(proxy.url, work)
    assert commit_outcome(caught.value) == "uncertain"


def test_a_scope_whose_commit_is_lost_is_uncertain(proxy: FaultProxy) -> None:
    """So has the driver's error, where nothing is repeated."""
    with (
        SqlAlchemySessionFactory(DatabaseSettings(proxy.url)) as factory,
        pytest.raises(DBAPIError) as caught,
        factory.begin() as session,
    ):
        session.execute(PAY)
        proxy.cut("after", "COMMIT")
    assert commit_outcome(caught.value) == "uncertain"


def test_a_refused_commit_is_rolled_back(server: PostgresServer) -> None:
    """A COMMIT that the server answers with an error has saved nothing."""
    fail_at_commit(server, "23514")
    with SqlAlchemySessionFactory(DatabaseSettings(server.url)) as factory:
        with pytest.raises(DBAPIError) as caught, factory.begin() as session:
            session.execute(PAY)
        assert commit_outcome(caught.value) == "rolled back"
        with (
            pytest.raises(CommitRolledBackError) as given_up,
            factory.begin() as session,
            suppress(DBAPIError),
        ):
            session.execute(text("SELECT 1 / 0"))
        assert commit_outcome(given_up.value) == "rolled back"


@ways
def test_failed_callbacks_leave_it_committed(way: Way, server: PostgresServer) -> None:
    """The error of a callback has the outcome of the commit before it."""

    def fail() -> None:
        raise KeyError

    def work(session: Session) -> None:
        session.execute(PAY)
        on_commit(session, fail)

    with pytest.raises(AfterCommitError) as caught:
        way.run(server.url, work)
    assert commit_outcome(caught.value) == "committed"


def test_an_interrupted_commit_is_uncertain(
    server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Ctrl-C that strikes COMMIT leaves its outcome open."""
    with SqlAlchemySessionFactory(DatabaseSettings(server.url)) as factory:
        with pytest.raises(KeyboardInterrupt) as caught, factory.begin() as session:
            session.execute(PAY)
            driver: Any = type(session.connection().connection.dbapi_connection)
            commit = driver.commit

            def interrupt(connection: object) -> None:
                commit(connection)
                raise KeyboardInterrupt

            monkeypatch.setattr(driver, "commit", interrupt)
        monkeypatch.undo()
    assert commit_outcome(caught.value) == "uncertain"


def test_an_earlier_transaction_is_another_one(proxy: FaultProxy) -> None:
    """An error that is raised while another is handled has no part of its outcome."""
    caught: list[BaseException] = []
    with SqlAlchemySessionFactory(DatabaseSettings(proxy.url)) as factory:
        try:
            with factory.begin() as session:
                session.execute(PAY)
                proxy.cut("after", "COMMIT")
        except DBAPIError:
            try:
                with factory.begin() as session:
                    session.execute(text("SELECT 1 / 0"))
            except DBAPIError as error:
                caught.append(error)
    assert [commit_outcome(error) for error in caught] == [None]


def test_a_cancelled_commit_of_a_plain_session_is_not_taken_for_none(
    server: PostgresServer,
) -> None:
    """SQLAlchemy's own sessions do not know the outcome: it is uncertain, and not absent."""

    async def main() -> BaseException:
        engine = create_async_engine(server.url_for(driver="asyncpg"))
        reached = asyncio.Event()

        class SlowToClose(AsyncSession):
            @override
            async def close(self) -> None:
                reached.set()
                await asyncio.sleep(0.01)
                await super().close()

        async def work(session: AsyncSession) -> None:
            await session.execute(PAY)

        sessions = async_sessionmaker(engine, class_=SlowToClose)
        task = asyncio.create_task(run_in_transaction_async(sessions, work))
        await reached.wait()
        task.cancel()
        try:
            with pytest.raises(asyncio.CancelledError) as caught:
                await task
            return caught.value
        finally:
            await engine.dispose()

    assert commit_outcome(asyncio.run(main())) == "uncertain"


def test_a_cancelled_close_after_the_commit_is_committed(server: PostgresServer) -> None:
    """If a session's own ``close()`` is cancelled, the commit before it has succeeded."""

    async def main() -> BaseException:
        reached = asyncio.Event()

        class SlowToClose(AsyncSession):
            @override
            async def close(self) -> None:
                reached.set()
                await asyncio.Event().wait()

        settings = DatabaseSettings(server.url_for(driver="psycopg"))
        async with AsyncSqlAlchemySessionFactory(settings, session_class=SlowToClose) as sessions:

            async def write() -> None:
                async with sessions.begin() as session:
                    await session.execute(PAY)

            task = asyncio.create_task(write())
            await reached.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError) as caught:
                await task
        return caught.value

    assert commit_outcome(asyncio.run(main())) == "committed"
