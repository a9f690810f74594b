"""Runs work in transactions, and repeats those that failed for a reason that passes."""

from __future__ import annotations

from functools import partial, update_wrapper
from typing import TYPE_CHECKING, TypeVar

from sqlalchemy.orm import Session

from sessionfactory.transactions.attempts import Attempt, Run, check_work

if TYPE_CHECKING:
    from collections.abc import Callable

    from sessionfactory.interfaces import SessionFactory
    from sessionfactory.transactions.verification.watch import Verification

S = TypeVar("S", bound=Session)
T = TypeVar("T")


def run_in_transaction(  # noqa: PLR0913 - named, and each with a default
    sessions: SessionFactory[S],
    work: Callable[[S], T],
    *,
    attempts: int | None = 10,
    timeout: float | None = 45.0,
    retry_lock_timeout: bool = False,
    idempotent: bool = False,
    verify_commit: Verification = "off",
) -> T:
    """Run a function in a transaction, and repeat it if it failed for a reason that passes.

    Each attempt has a session of its own. The work is repeated after a serialization failure, a
    deadlock, SQLite's BUSY, Galera's conflict at COMMIT, a connection that was lost before COMMIT
    was sent, and while the server restarts or fails over; see ``is_transient``. It should do
    nothing that a rollback does not undo, and leave the transaction's end to this function; what
    is to follow a commit is for ``on_commit``. What may have been committed is never repeated.

    Between two attempts is a random time, by stamina: at most 10 ms before the second, or twice as
    long as the first one took; each time doubled, up to 0.5 s, or ten times as long as one takes,
    but 5 s. While the server cannot be reached, that is from 0.1 s to 5 s.

    Args:
        sessions: any factory, ``sessionmaker`` included; each attempt is a ``sessions.begin()``.
        work: is given the session. What it returns is returned.
        attempts: how many, at most; ``None`` for no limit.
        timeout: seconds after which no other attempt is begun; ``None`` for no limit.
        retry_lock_timeout: also go on when a lock was waited for too long.
        idempotent: doing the work twice does no harm: repeat it even if its COMMIT, or that of
            another transaction in it, may have happened.
        verify_commit: what to do about a COMMIT whose reply was lost. ``"off"``: an error.
            ``"status"``: read the transaction's status from PostgreSQL (13 or newer); an error if
            it has crashed since. ``"marker"``: look for a row that the transaction wrote into a
            table for this purpose, see ``marker_table``; an error only if the database cannot be
            reached. Both add a statement to each transaction, and a transaction id or a row, even
            if it only reads. What dblink or a foreign table commits on another server is outside
            of the check if this server is lost between the two commits.

    Returns:
        what the work returned, once it is committed.

    Raises:
        CommitRolledBackError: the error of a statement was caught, and the database had given the
            transaction up: nothing is saved. Repeated if that error was one that passes.
        CommitUncertainError: a COMMIT may have happened, or not.
        TypeError: the work is a coroutine function, or no function; or this is no factory.
        SettingsError: a limit makes no sense.
        Exception: that of the last attempt; its notes list all attempts if there were several.
    """
    check_work(sessions, work)
    run = Run(
        attempts,
        timeout,
        retry_lock_timeout=retry_lock_timeout,
        idempotent=idempotent,
        verify_commit=verify_commit,
    )
    return retry(partial(_attempt, sessions, work), run, work)


def retry(attempt: Callable[[Run], T], run: Run, work: Callable[..., object]) -> T:
    """Make attempts until one succeeds, or its error is the last."""
    # Stamina is used after the first attempt, because most transactions succeed at once.
    try:
        return attempt(run)
    except Exception:
        if not run.goes_on:
            raise
    import stamina  # noqa: PLC0415 - most processes never need it

    go_on = partial(_go_on, attempt, run, work)
    update_wrapper(go_on, work, updated=())  # stamina's log then names the work
    again = stamina.retry(on=run.backoff, attempts=run.attempts, timeout=run.left)(go_on)
    try:
        return again()
    except Exception as error:
        run.add_notes(error)
        raise


def _go_on(attempt: Callable[[Run], T], run: Run, work: Callable[..., object]) -> T:
    run.hand_over_first()
    run.log_repeat(work)
    return attempt(run)


def _attempt(sessions: SessionFactory[S], work: Callable[[S], T], run: Run) -> T:
    attempt = Attempt(run)
    try:
        with sessions.begin() as session:
            attempt.begin(session)
            try:
                result = attempt.accept(work(session))
            finally:
                attempt.end(session)
    except Exception as error:
        attempt.judge(error)
        raise
    finally:
        attempt.close()
    return result
