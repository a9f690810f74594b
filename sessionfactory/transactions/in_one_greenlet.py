"""A plain function as a transaction of the async half."""

from __future__ import annotations

from asyncio import CancelledError
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeVar, cast

from sessionfactory.drivers.asyncio_ext import AsyncSession, async_sessionmaker
from sessionfactory.pool.shielded import about_to_commit
from sessionfactory.sessions.shielded_session import run_scope
from sessionfactory.transactions.attempts import Attempt, Run, check_work
from sessionfactory.transactions.options import SessionsWithOptions
from sessionfactory.transactions.retry_async import retry_async

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.orm import Session

    from sessionfactory.interfaces import AsyncSessionFactory
    from sessionfactory.transactions.verification.watch import Verification

A = TypeVar("A", bound=AsyncSession)
T = TypeVar("T")


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
    """Do some work, a plain function, in a transaction of the async half.

    It is ``run_in_transaction_async`` for a function that takes a ``Session``, such as one that the
    sync half has as well: what it calls waits for the database without ``await``, while the event
    loop goes on. The whole transaction takes one greenlet and one task, which is faster than a
    coroutine function that awaits each statement.

    See ``run_in_transaction`` for the arguments, and what it raises. The work runs in another task
    than the caller's, which has its context; a cancellation strikes it at its next statement.
    """
    check_work(sessions, work)
    run = Run(
        attempts,
        timeout,
        retry_lock_timeout=retry_lock_timeout,
        idempotent=idempotent,
        verify_commit=verify_commit,
    )
    return await retry_async(partial(_attempt, sessions, work), run, work)


async def _attempt(sessions: AsyncSessionFactory[A], work: Callable[[Session], T], run: Run) -> T:
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
