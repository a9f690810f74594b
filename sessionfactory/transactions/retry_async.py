"""Async twin of ``retry``, and a plain function as a transaction of the async half."""

from __future__ import annotations

from asyncio import CancelledError
from functools import partial, update_wrapper
from typing import TYPE_CHECKING, Protocol, TypeVar, cast

from sessionfactory.drivers.asyncio_ext import AsyncSession, async_sessionmaker
from sessionfactory.pool.shielded import about_to_commit
from sessionfactory.sessions.shielded_session import run_scope
from sessionfactory.transactions.attempts import Attempt, Run, check_async_work, check_work
from sessionfactory.transactions.options import SessionsWithOptions

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sqlalchemy.orm import Session

    from sessionfactory.interfaces import AsyncSessionFactory
    from sessionfactory.transactions.verification.watch import Verification

A = TypeVar("A", bound=AsyncSession)
T = TypeVar("T")


async def run_in_transaction_async(  # noqa: PLR0913 - named, and each with a default
    sessions: AsyncSessionFactory[A],
    work: Callable[[A], Awaitable[T]],
    *,
    attempts: int | None = 10,
    timeout: float | None = 45.0,
    retry_lock_timeout: bool = False,
    idempotent: bool = False,
    verify_commit: Verification = "off",
) -> T:
    """Async twin of ``run_in_transaction``: the work is a coroutine function.

    A cancellation ends it, as it ends ``sessions.begin()``; nothing is repeated then.

    Raises:
        TypeError: what the work returns cannot be awaited; it was rolled back.
    """
    check_async_work(sessions, work)
    run = Run(
        attempts,
        timeout,
        retry_lock_timeout=retry_lock_timeout,
        idempotent=idempotent,
        verify_commit=verify_commit,
    )
    return await retry_async(partial(_attempt, sessions, work), run, work)


async def retry_async(
    attempt: Callable[[Run], Awaitable[T]], run: Run, work: Callable[..., object]
) -> T:
    """Async twin of ``retry``."""
    # Stamina is used after the first attempt, because most transactions succeed at once.
    try:
        return await attempt(run)
    except Exception:
        if not run.goes_on:
            raise
    import stamina  # noqa: PLC0415 - most processes never need it

    go_on = partial(_go_on, attempt, run, work)
    update_wrapper(go_on, work, updated=())  # stamina's log then names the work
    again = stamina.retry(on=run.backoff, attempts=run.attempts, timeout=run.left)(go_on)
    try:
        return await again()
    except Exception as error:
        run.add_notes(error)
        raise


async def _go_on(
    attempt: Callable[[Run], Awaitable[T]], run: Run, work: Callable[..., object]
) -> T:
    run.hand_over_first()
    run.log_repeat(work)
    return await attempt(run)


async def _attempt(
    sessions: AsyncSessionFactory[A], work: Callable[[A], Awaitable[T]], run: Run
) -> T:
    attempt = Attempt(run)
    try:
        async with sessions.begin() as session:
            attempt.begin(session.sync_session)
            try:
                result = attempt.accept(await attempt.awaitable(work(session)))
            finally:
                attempt.end(session.sync_session)
    except Exception as error:
        attempt.judge(error)
        raise
    except CancelledError as error:
        attempt.note_cancelled(error)
        raise
    finally:
        attempt.close()
    return result


class _Scope(Protocol):
    """What ``begin()`` of a factory of ours returns."""

    async def run_sync(self, work: Callable[[Session], T]) -> T:
        """Run the whole transaction in one greenlet."""
        ...


async def run_sync_in_transaction(  # noqa: PLR0913 - named, and each with a default
    sessions: AsyncSessionFactory[A],
    work: Callable[[Session], T],
    *,
    attempts: int | None = 10,
    timeout: float | None = 45.0,
    retry_lock_timeout: bool = False,
    idempotent: bool = False,
    verify_commit: Verification = "off",
) -> T:
    """Run a plain function in a transaction of the async half.

    It is ``run_in_transaction_async`` for a function that takes a ``Session``, such as one that the
    sync half has as well: what it calls waits for the database without ``await``, while the event
    loop goes on. The whole transaction takes one greenlet and one task, which is faster than a
    coroutine function that awaits each statement.

    See ``run_in_transaction`` for the arguments and errors. The work runs in another task than the
    caller's, in the same context; a cancellation interrupts it at its next statement.
    """
    check_work(sessions, work)
    run = Run(
        attempts,
        timeout,
        retry_lock_timeout=retry_lock_timeout,
        idempotent=idempotent,
        verify_commit=verify_commit,
    )
    return await retry_async(partial(_attempt_sync, sessions, work), run, work)


async def _attempt_sync(
    sessions: AsyncSessionFactory[A], work: Callable[[Session], T], run: Run
) -> T:
    attempt = Attempt(run)

    def block(session: Session) -> T:
        attempt.begin(session)
        try:
            return attempt.accept(work(session))
        finally:
            attempt.end(session)

    try:
        return await _scope(sessions, block)
    except Exception as error:
        attempt.judge(error)
        raise
    except CancelledError as error:
        attempt.note_cancelled(error)
        raise
    finally:
        attempt.close()


async def _scope(sessions: AsyncSessionFactory[A], block: Callable[[Session], T]) -> T:
    if isinstance(sessions, SessionsWithOptions):
        return await _scope(*sessions.without(block))
    if isinstance(sessions, async_sessionmaker):
        return await run_scope(sessions(), partial(_to_the_end, block))
    scope = sessions.begin()
    if hasattr(scope, "run_sync"):
        return await cast("_Scope", scope).run_sync(block)
    async with scope as session:
        return await session.run_sync(block)


def _to_the_end(block: Callable[[Session], T], session: Session) -> T:
    result = block(session)
    about_to_commit()
    return result
