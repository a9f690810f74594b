"""The async half of ``retrying``."""

from __future__ import annotations

from asyncio import CancelledError
from functools import partial, update_wrapper
from typing import TYPE_CHECKING, TypeVar

from sessionfactory.drivers.asyncio_ext import AsyncSession
from sessionfactory.transactions.attempts import Attempt, Run, check_async_work

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

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

    A cancellation ends it, as it ends ``sessions.begin()``; nothing is tried again then.

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
    # Stamina comes in after the first one: most transactions succeed, and need not pay for it.
    try:
        return await attempt(run)
    except Exception:
        if not run.goes_on:
            raise
    import stamina  # noqa: PLC0415 - most processes never need it

    go_on = partial(_go_on, attempt, run, work)
    update_wrapper(go_on, work, updated=())  # it is the work that stamina's log names
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
