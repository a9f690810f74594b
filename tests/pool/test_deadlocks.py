"""Sessions inside sessions: who waits for what never comes back is told at once."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import TimeoutError as SqlAlchemyTimeoutError

from sessionfactory import (
    AsyncSqlAlchemySessionFactory,
    DatabaseSettings,
    PoolDeadlockError,
    PoolExhaustedError,
    PoolSettings,
    SqlAlchemySessionFactory,
)
from tests.support.scopes import mixed_scopes, mixed_tasks, requests

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

    from sqlalchemy.orm import Session

ONE = text("SELECT 1")
NEVER = 3600.0
SOON = 0.05


def settings(url: str, size: int = 1, timeout: float = NEVER) -> DatabaseSettings:
    pool = PoolSettings(size=size, max_overflow=0, timeout=timeout)
    return DatabaseSettings(url, pool=pool)


def is_told(error: PoolDeadlockError, owner: str) -> None:
    """Require the message to say what to do, and to name the holder."""
    message, holder = str(error).splitlines()
    assert message == (
        "Pool deadlock on 'orders': all 1 connections are held by callers that wait for another"
        " connection, and this call is the last of them. Use one session for a unit of work, and"
        " pass it on to what is called inside; or raise pool.size. In use by:"
    )
    assert f", {owner}, for 0." in holder
    assert isinstance(error, SqlAlchemyTimeoutError)
    assert len(error.holders) == 1


def test_one_inside_another(url: str) -> None:
    """A session inside another one, on a pool of one, fails at once, and the error has the cure."""
    with SqlAlchemySessionFactory(settings(url), name="orders") as factory:
        with factory.begin() as outer:
            outer.execute(ONE)
            with factory() as inner, pytest.raises(PoolDeadlockError) as caught:
                inner.execute(ONE)
            assert outer.scalar(ONE) == 1
        is_told(caught.value, "thread MainThread")
        assert factory.status().waiting == 0


def test_one_task_inside_another(url: str) -> None:
    """So is a task."""

    async def main() -> None:
        async with AsyncSqlAlchemySessionFactory(settings(url), name="orders") as factory:
            async with factory.begin() as outer, factory() as inner:
                await outer.execute(ONE)
                with pytest.raises(PoolDeadlockError) as caught:
                    await inner.execute(ONE)
                assert await outer.scalar(ONE) == 1
            task = asyncio.current_task()
            assert task is not None
            is_told(caught.value, f"task {task.get_name()}")
            assert factory.status().waiting == 0

    asyncio.run(main())


def test_one_fails_and_the_others_go_on(url: str) -> None:
    """Of five who have a connection each and want another, one is told, and the others get it."""
    everybody = threading.Barrier(5)
    with SqlAlchemySessionFactory(settings(url, 5)) as factory:

        def nest(_: int) -> int:
            with factory() as outer:
                outer.execute(ONE)
                everybody.wait(30)
                with factory() as inner:
                    try:
                        inner.execute(ONE)
                    except PoolDeadlockError as error:
                        return len(error.holders)
            return 0

        with ThreadPoolExecutor(5) as threads:
            assert sorted(threads.map(nest, range(5))) == [0, 0, 0, 0, 5]


def test_one_task_fails_and_the_others_go_on(url: str) -> None:
    """So with tasks."""

    async def main() -> None:
        everybody = asyncio.Event()
        began = 0

        async def nest() -> int:
            nonlocal began
            async with factory() as outer, factory() as inner:
                await outer.execute(ONE)
                began += 1
                if began == 5:
                    everybody.set()
                await everybody.wait()
                try:
                    await inner.execute(ONE)
                except PoolDeadlockError as error:
                    return len(error.holders)
            return 0

        async with AsyncSqlAlchemySessionFactory(settings(url, 5)) as factory:
            outcomes = await asyncio.gather(*(nest() for _ in range(5)))
        assert sorted(outcomes) == [0, 0, 0, 0, 5]

    asyncio.run(main())


def test_in_memory() -> None:
    """A database in memory has one connection, and the message says so."""
    with SqlAlchemySessionFactory(DatabaseSettings("sqlite://")) as factory, factory() as outer:
        outer.execute(ONE)
        with factory() as inner, pytest.raises(PoolDeadlockError, match="or use a file: a data"):
            inner.execute(ONE)


def test_scope_of_a_library(url: str) -> None:
    """A scope that a function of this package enters for the user counts as the user's."""
    with SqlAlchemySessionFactory(settings(url)) as factory:

        def work(session: Session) -> None:
            session.execute(ONE)
            run(work)

        def run(inside: Callable[[Session], None]) -> None:
            _RUN["run"](factory, inside)

        with pytest.raises(PoolDeadlockError):
            run(work)


_RUN: dict[str, Callable[[SqlAlchemySessionFactory, Callable[[Session], None]], None]] = {}
exec(
    compile(
        "def run(sessions, work):\n    with sessions.begin() as session:\n        work(session)\n",
        "<library>",
        "exec",
    ),
    _RUN,
)


def is_not_told(factory: SqlAlchemySessionFactory) -> None:
    """Require the deadline to decide."""
    with factory() as inner, pytest.raises(PoolExhaustedError) as caught:
        inner.execute(ONE)
    assert type(caught.value) is PoolExhaustedError


@pytest.fixture
def one(url: str) -> Generator[SqlAlchemySessionFactory]:
    """A factory with one connection, and little patience."""
    with SqlAlchemySessionFactory(settings(url, timeout=SOON)) as made:
        yield made


def test_somebody_works(one: SqlAlchemySessionFactory) -> None:
    """Waiting for a holder that does not wait is no deadlock."""
    with one() as session, ThreadPoolExecutor(1) as threads:
        session.execute(ONE)
        threads.submit(is_not_told, one).result()


def test_frame_is_gone(one: SqlAlchemySessionFactory) -> None:
    """A session that a function opened and returned may be anybody's by now."""

    def opened() -> Session:
        session = one()
        session.execute(ONE)
        return session

    with opened():
        is_not_told(one)


def test_another_call_of_the_same_function(one: SqlAlchemySessionFactory) -> None:
    """A worker that left one request's session open, and serves another, holds nothing up."""
    kept: list[Session] = []

    def serve() -> None:
        if kept:
            is_not_told(one)
            return
        session = one()
        session.execute(ONE)
        kept.append(session)

    serve()
    serve()
    kept.pop().close()


def test_generator(one: SqlAlchemySessionFactory) -> None:
    """Nor is a dependency's frame there, which may go on in any thread."""

    @contextmanager
    def get_session() -> Generator[Session]:
        with one() as session:
            yield session

    with get_session() as session:
        session.execute(ONE)
        is_not_told(one)


def test_connection_without_a_session(one: SqlAlchemySessionFactory) -> None:
    """The owner of a connection of the engine is unknown."""
    with one.engine.connect() as connection:
        connection.execute(ONE)
        is_not_told(one)


def test_somebody_else_is_inside(one: SqlAlchemySessionFactory) -> None:
    """A session that another thread is inside of will go on."""
    entered, leave = threading.Event(), threading.Event()
    with one() as session, ThreadPoolExecutor(1) as threads:
        session.execute(ONE)

        def wait(*_: object) -> None:
            entered.set()
            assert leave.wait(30)

        event.listen(session, "do_orm_execute", wait)
        inside = threads.submit(session.scalar, ONE)
        assert entered.wait(30)
        is_not_told(one)
        leave.set()
        assert inside.result() == 1


def test_task_that_is_over(url: str) -> None:
    """A session that another task used first, which has ended, was handed over."""

    async def main() -> None:
        async with (
            AsyncSqlAlchemySessionFactory(settings(url, timeout=SOON)) as factory,
            factory() as session,
            factory() as inner,
        ):
            await asyncio.create_task(_use(session.execute))
            with pytest.raises(PoolExhaustedError) as caught:
                await inner.execute(ONE)
        assert type(caught.value) is PoolExhaustedError

    async def _use(execute: Callable[..., Awaitable[object]]) -> None:
        await execute(ONE)

    asyncio.run(main())


def test_no_false_alarm_in_mixed_scopes(url: str) -> None:
    """Nested scopes of eight threads, on just as many connections as they need, are served."""
    assert mixed_scopes(url, 400) == 400


def test_no_false_alarm_in_mixed_tasks(url: str) -> None:
    """So are those of tasks."""
    assert mixed_tasks(url, 400) == 400


def test_no_false_alarm_with_fastapi(url: str) -> None:
    """Requests whose dependencies run in worker threads are all served by a pool of two."""
    assert requests(url, 200) == 200


def test_a_session_that_was_handed_over_is_waited_for(url: str) -> None:
    """No deadlock is reported where another thread will close the session."""

    def finish(session: Session) -> None:
        waiting.wait(30)
        session.commit()
        session.close()

    waiting = threading.Event()
    with SqlAlchemySessionFactory(settings(url, timeout=30)) as factory:
        session = factory()
        session.execute(ONE)
        with ThreadPoolExecutor(1) as threads, factory() as another:
            closed = threads.submit(finish, session)
            waiting.set()
            assert another.scalar(ONE) == 1
            closed.result(30)


def test_a_session_that_was_handed_to_another_task_is_waited_for(url: str) -> None:
    """So it is with tasks: the one that opened the session goes on to the next job."""

    async def main() -> None:
        async with AsyncSqlAlchemySessionFactory(settings(url, timeout=30)) as factory:

            async def finish() -> None:
                await asyncio.sleep(0.05)  # this is the work
                await session.commit()
                await session.close()

            session = factory()
            await session.execute(ONE)
            rest = asyncio.create_task(finish())
            async with factory() as another:
                assert await another.scalar(ONE) == 1
            await rest

    asyncio.run(main())


def test_a_connection_that_is_needed_at_commit(url: str) -> None:
    """A session that flushes at its COMMIT, inside another one's scope, is told at once."""

    async def main() -> None:
        factory = AsyncSqlAlchemySessionFactory(settings(url))
        async with factory, factory.begin() as outer:
            await outer.execute(ONE)
            inner = factory()

            def flush(session: Session) -> None:
                session.execute(ONE)

            event.listen(inner.sync_session, "before_commit", flush)
            with pytest.raises(PoolDeadlockError):
                await inner.commit()
            await inner.close()

    asyncio.run(main())
