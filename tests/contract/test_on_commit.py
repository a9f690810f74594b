"""What runs after a commit: in both halves, on every database, in scopes of every factory."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import pytest
from sqlalchemy import insert
from sqlalchemy.exc import IntegrityError

from sessionfactory import AfterCommitError, ClosedError, commit_outcome, on_commit
from sessionfactory.testing import capturing_callbacks
from tests.support.awaited import sync_of
from tests.support.halves import SyncHalf
from tests.support.places import FILES, ROOMY, Place, Row, ids, on

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from sqlalchemy.ext.asyncio import AsyncSession

    from sessionfactory import AsyncSessionFactory

    Way = Callable[[AsyncSessionFactory, Callable[[AsyncSession], None]], Awaitable[None]]

FAKES: Final = ("sync rollback", "async rollback", "sync in-memory", "async in-memory")
PLAIN: Final = ("sync plain", "async plain")


def after(
    place: Place, session: AsyncSession, work: Callable[[], Coroutine[Any, Any, object]]
) -> None:
    """Have a coroutine function run after the commit: of the sync half, as a plain one."""
    if isinstance(place.half, SyncHalf):

        def run() -> None:
            place.half.run(_nothing(work))

        on_commit(sync_of(session), run)
    else:
        on_commit(session, work)


async def _nothing(work: Callable[[], Coroutine[Any, Any, object]]) -> None:
    await work()


async def begin(sessions: AsyncSessionFactory, work: Callable[[AsyncSession], None]) -> None:
    """Work in ``sessions.begin()``."""
    async with sessions.begin() as session:
        work(session)


async def commit(sessions: AsyncSessionFactory, work: Callable[[AsyncSession], None]) -> None:
    """Work, and commit."""
    async with sessions() as session:
        work(session)
        await session.commit()


async def begin_session(
    sessions: AsyncSessionFactory, work: Callable[[AsyncSession], None]
) -> None:
    """Work in ``session.begin()``."""
    async with sessions() as session, session.begin():
        work(session)


@pytest.mark.parametrize("way", [begin, commit, begin_session])
@on(*ROOMY, *FAKES, *PLAIN)
async def test_runs_in_order_after_the_commit(place: Place, way: Way) -> None:
    """Callbacks run once, in order, when another session sees what was committed."""
    log: list[object] = []
    async with place.sessions() as sessions:

        async def look() -> None:
            log.append(await ids(sessions))

        def work(session: AsyncSession) -> None:
            session.add(Row(id=1))
            after(place, session, look)
            on_commit(sync_of(session), lambda: log.append("second"))
            assert log == []

        await way(sessions, work)
        assert log == [[1], "second"]


@on(*FILES, *FAKES, *PLAIN, "sync psycopg", "async asyncpg", "sync pymysql")
async def test_rolled_back(place: Place) -> None:
    """A transaction that is rolled back, or closed, drops its callbacks; the next has its own."""
    log: list[object] = []
    async with place.sessions() as sessions:
        with pytest.raises(KeyError):
            async with sessions.begin() as session:
                on_commit(sync_of(session), lambda: log.append("raised"))
                raise KeyError
        async with sessions() as session:
            await session.connection()
            on_commit(sync_of(session), lambda: log.append("rolled back"))
            await session.rollback()
            await session.connection()
            on_commit(sync_of(session), lambda: log.append("closed"))
            await session.close()
        async with sessions() as session:
            on_commit(sync_of(session), lambda: log.append("next"))
            await session.commit()
            await session.commit()
    assert log == ["next"]


@on(*FILES, *FAKES, *PLAIN, "sync psycopg", "async asyncpg", "async aiomysql")
async def test_savepoints(place: Place) -> None:
    """A savepoint takes with it what was given in it, and what was given in its savepoints."""
    log: list[int] = []
    async with place.sessions() as sessions, sessions.begin() as session:
        on_commit(sync_of(session), lambda: log.append(0))
        async with session.begin_nested():
            on_commit(sync_of(session), lambda: log.append(1))
        with pytest.raises(KeyError):
            async with session.begin_nested():
                on_commit(sync_of(session), lambda: log.append(2))
                async with session.begin_nested():
                    on_commit(sync_of(session), lambda: log.append(3))
                raise KeyError
        left = await session.begin_nested()
        on_commit(sync_of(session), lambda: log.append(4))
        await left.rollback()
        on_commit(sync_of(session), lambda: log.append(5))
        assert log == []
    assert log == [0, 1, 5]


@on(*FILES, "sync rollback", "async rollback", "sync psycopg", "async asyncpg")
async def test_flush_that_fails(place: Place) -> None:
    """A flush that fails takes along its savepoint's callbacks, and not those before it."""
    log: list[int] = []
    async with place.sessions() as sessions, sessions.begin() as session:
        session.add(Row(id=1))
        await session.flush()
        on_commit(sync_of(session), lambda: log.append(1))
        with pytest.raises(IntegrityError):
            async with session.begin_nested():
                on_commit(sync_of(session), lambda: log.append(2))
                await session.execute(insert(Row).values(id=1))
    assert log == [1]


@on(*ROOMY, *PLAIN, "sync rollback", "async rollback")
async def test_session_is_used_and_closed(place: Place) -> None:
    """In a callback the session reads, writes, commits with callbacks of its own, and closes."""
    log: list[object] = []
    async with place.sessions() as sessions:
        async with sessions.begin() as session:

            async def write() -> None:
                on_commit(sync_of(session), lambda: log.append("inner"))
                session.add(Row(id=len(await ids(sessions)) + 2))
                await session.commit()
                async with session.begin():
                    log.append(await ids(sessions))

            session.add(Row(id=1))
            after(place, session, write)
            after(place, session, session.close)
            on_commit(sync_of(session), lambda: log.append("last"))
        assert log == ["inner", [1, 3], "last"]


@on(*FILES, *FAKES, *PLAIN, "sync psycopg", "async asyncpg", "async aiomysql")
async def test_failures(place: Place) -> None:
    """All run, then the failures are told as one error; the data stays, the session works on."""
    log: list[str] = []

    def fail(error: Exception) -> None:
        raise error

    async with place.sessions() as sessions, sessions() as session:
        session.add(Row(id=1))
        on_commit(sync_of(session), lambda: fail(KeyError("one")))
        on_commit(sync_of(session), lambda: log.append("between"))
        on_commit(sync_of(session), lambda: fail(ValueError("two")))
        with pytest.raises(AfterCommitError, match="committed, and stays so") as caught:
            await session.commit()
        assert "2 of 3 failed" in str(caught.value)
        assert [repr(error) for error in caught.value.exceptions] == [
            "KeyError('one')",
            "ValueError('two')",
        ]
        assert log == ["between"]
        await session.commit()
        assert log == ["between"]
        await session.close()
        assert await ids(sessions) == [1]


@on(*FILES)
async def test_failures_of_a_scope(place: Place) -> None:
    """``except*`` finds what failed inside, and what remains is the same kind of error."""

    def fail() -> None:
        raise KeyError

    async with place.sessions() as sessions:
        found: list[object] = []
        try:
            async with sessions.begin() as session:
                on_commit(sync_of(session), fail)
        except* KeyError as group:
            found.append(type(group))
        assert found == [AfterCommitError]


@on("sync file", "sync plain")
async def test_interrupt(place: Place) -> None:
    """A Ctrl-C ends the callback that it interrupts, and is raised when the others have run."""
    log: list[str] = []

    def interrupt() -> None:
        raise KeyboardInterrupt

    async with place.sessions() as sessions, sessions() as session:
        on_commit(sync_of(session), interrupt)
        on_commit(sync_of(session), lambda: log.append("late"))
        with pytest.raises(KeyboardInterrupt) as caught:
            await session.commit()
        await session.commit()
        assert log == ["late"]
        assert commit_outcome(caught.value) == "committed"


@on("sync file")
async def test_cancellation_that_a_callback_passes_on(place: Place) -> None:
    """A cancellation that one callback raises is passed on when the others have run."""
    log: list[str] = []

    def cancelled() -> None:
        raise asyncio.CancelledError

    async with place.sessions() as sessions, sessions() as session:
        on_commit(sync_of(session), cancelled)
        on_commit(sync_of(session), lambda: log.append("after"))
        with pytest.raises(asyncio.CancelledError):
            await session.commit()
    assert log == ["after"]


@on("sync rollback", "async rollback")
async def test_capturing(place: Place) -> None:
    """A test gets the callbacks of what was committed, and nothing runs; blocks nest."""
    log: list[int] = []
    async with place.sessions() as sessions:
        async with sessions.begin() as early:
            with capturing_callbacks(sync_of(sessions)) as outer:
                with capturing_callbacks(sync_of(sessions)) as inner:
                    async with sessions.begin() as session:
                        on_commit(sync_of(session), lambda: log.append(1))
                with pytest.raises(KeyError):
                    async with sessions.begin() as session:
                        on_commit(sync_of(session), lambda: log.append(2))
                        raise KeyError
                async with sessions.begin() as session:
                    on_commit(sync_of(session), lambda: log.append(3))
            on_commit(sync_of(early), lambda: log.append(4))
        assert log == [4]
        for callback in inner + outer:
            callback()
        assert log == [4, 1, 3]
        fake = sync_of(sessions)
    with (
        pytest.raises(ClosedError, match="only inside its block"),
        capturing_callbacks(fake),
    ):
        pass


@on(*FILES)
async def test_capturing_elsewhere(place: Place) -> None:
    """Callbacks of another factory's sessions cannot be captured, and that is said."""
    message = "captured from a rollback fake, not from (Async)?SqlAlchemySessionFactory"
    async with place.factory() as sessions:
        with (
            pytest.raises(TypeError, match=message),
            capturing_callbacks(sync_of(sessions)),
        ):
            pass


@on("sync file")
async def test_awaiting_on_the_sync_half(place: Place) -> None:
    """A coroutine function is refused there, and so is what turns out to be one."""

    async def work() -> None:
        raise AssertionError

    class Later:
        def __await__(self) -> object:
            raise AssertionError

    async with place.factory() as sessions, sessions() as session:
        with pytest.raises(TypeError, match="is for an AsyncSession; this is a Session"):
            on_commit(sync_of(session), work)
        on_commit(sync_of(session), lambda: work())  # noqa: PLW0108 - hides what it is
        on_commit(sync_of(session), Later)
        with pytest.raises(AfterCommitError) as caught:
            await session.commit()
        message = (
            "a callback of on_commit returned something to await, on a session of the sync half"
        )
        assert [str(error) for error in caught.value.exceptions] == [message] * 2


@on(*FILES)
async def test_what_it_does_not_take(place: Place) -> None:
    """Something else than a session, or a function, is a TypeError that says so."""
    taking: Any = on_commit
    async with place.factory() as sessions, sessions() as session:
        with pytest.raises(TypeError, match=r"takes a Session or AsyncSession, not .*Factory"):
            taking(sync_of(sessions), print)
        with pytest.raises(TypeError, match="takes a function without arguments, not NoneType"):
            taking(sync_of(session), None)


@on("async plain")
async def test_cancelled_in_a_callback(place: Place) -> None:
    """With SQLAlchemy's own session, a cancellation ends the callback it strikes, and no other."""
    log: list[str] = []
    started = asyncio.Event()

    async def wait() -> None:
        started.set()
        await asyncio.Event().wait()

    def fail() -> None:
        raise KeyError

    async with place.sessions() as sessions:

        async def work() -> None:
            async with sessions() as session:
                session.add(Row(id=1))
                on_commit(session, wait)
                on_commit(session, fail)
                on_commit(session, lambda: log.append("after"))
                await session.commit()

        task = asyncio.create_task(work())
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
        assert isinstance(caught.value.__cause__, AfterCommitError)
        assert log == ["after"]
        assert await ids(sessions) == [1]
