"""A session that is left open, or left too early, gives its connection back."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from sqlalchemy import text
from sqlalchemy.exc import InvalidRequestError

from sessionfactory import (
    AsyncSqlAlchemySessionFactory,
    ClosedError,
    DatabaseSettings,
    SessionSettings,
    SharedSessionError,
    SqlAlchemySessionFactory,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from sessionfactory.testing import PostgresServer

ONE = text("SELECT 1")
SLOW = text("SELECT pg_sleep(0.1)")
Use = Callable[[AsyncSqlAlchemySessionFactory], Awaitable[object]]


@pytest_asyncio.fixture(params=["psycopg", "asyncpg"])
async def sessions(
    request: pytest.FixtureRequest, postgres_server: PostgresServer
) -> AsyncGenerator[AsyncSqlAlchemySessionFactory]:
    settings = DatabaseSettings(postgres_server.url_for(request.param))
    async with AsyncSqlAlchemySessionFactory(settings) as factory:
        yield factory


async def all_are_back(sessions: AsyncSqlAlchemySessionFactory) -> None:
    """Require that no connection stays out, once the garbage is collected."""
    async with asyncio.timeout(10):
        while sessions.status().in_use:
            gc.collect()
            await asyncio.sleep(0.01)


async def gathered(sessions: AsyncSqlAlchemySessionFactory) -> None:
    """Call one session twice at the same time."""
    async with sessions() as session:
        await asyncio.gather(session.execute(SLOW), session.execute(ONE))


async def other_call_fails(sessions: AsyncSqlAlchemySessionFactory) -> None:
    """Leave the scope because of another task, while a call is inside."""

    async def fail() -> None:
        await asyncio.sleep(0)
        raise ValueError("no such user")

    async with sessions.begin() as session:
        await asyncio.gather(session.execute(SLOW), fail())


async def shielded(sessions: AsyncSqlAlchemySessionFactory) -> None:
    """Leave the scope when a time limit is over, and the call goes on."""
    async with sessions() as session:
        call = asyncio.shield(session.execute(SLOW))
        await asyncio.wait_for(call, 0.01)


def no_report(_loop: object, _context: dict[str, object]) -> None:
    """Take the reports of an event loop about tasks whose errors are not looked at."""


@pytest.mark.parametrize(
    ("use", "error"),
    [(gathered, SharedSessionError), (other_call_fails, ValueError), (shielded, TimeoutError)],
)
@pytest.mark.asyncio
async def test_a_scope_that_ends_while_a_call_is_inside(
    sessions: AsyncSqlAlchemySessionFactory, use: Use, error: type[Exception]
) -> None:
    """The first error reaches the caller; the connection is back when the call has left."""
    asyncio.get_running_loop().set_exception_handler(no_report)
    with pytest.raises(error):
        await use(sessions)
    await all_are_back(sessions)
    async with sessions() as session:
        assert await session.scalar(ONE) == 1


async def forgets(sessions: AsyncSqlAlchemySessionFactory) -> None:
    await sessions().execute(ONE)


async def fails(sessions: AsyncSqlAlchemySessionFactory) -> None:
    session = sessions()
    await session.execute(ONE)
    raise ValueError("bad input")


async def returns_rows(sessions: AsyncSqlAlchemySessionFactory) -> object:
    session = sessions()
    return await session.execute(ONE)


# SQLAlchemy and the driver warn of what was not closed, as they should.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("use", [forgets, fails, returns_rows])
@pytest.mark.asyncio
async def test_a_task_that_is_garbage(sessions: AsyncSqlAlchemySessionFactory, use: Use) -> None:
    """A task that ended and left its session open is kept alive by nothing of the pool."""

    async def work() -> object:
        return await use(sessions)

    task = asyncio.create_task(work())
    await asyncio.wait({task})
    task.exception()  # retrieved, as frameworks do
    del task
    await all_are_back(sessions)


@pytest.mark.asyncio
async def test_used_after_its_scope(sessions: AsyncSqlAlchemySessionFactory) -> None:
    """The error says where the session was opened, and no connection is taken."""
    async with sessions.begin() as session:
        await session.execute(ONE)
    for use in (session.execute, session.scalars):
        with pytest.raises(ClosedError) as caught:
            await use(ONE)
    assert f"It was opened at {__file__}:" in str(caught.value)
    with pytest.raises(ClosedError):
        async with session.begin():
            pass
    await session.rollback()
    await session.close()
    assert sessions.status().in_use == 0


def test_a_closed_session_that_opens_again() -> None:
    """``session.close_resets_only=true`` is SQLAlchemy's way; it is no option."""
    again = SessionSettings(close_resets_only=True)
    with SqlAlchemySessionFactory(DatabaseSettings("sqlite://", session=again)) as sessions:
        with sessions() as session:
            session.execute(ONE)
        assert session.scalar(ONE) == 1
        session.close()
    with SqlAlchemySessionFactory(DatabaseSettings("sqlite://")) as sessions:
        with sessions() as session:
            pass
        session.reset()
        with pytest.raises((ClosedError, InvalidRequestError)):
            session.execute(ONE)
