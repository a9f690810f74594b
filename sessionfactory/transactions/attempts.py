"""Decides whether a transaction that failed is repeated, or its error is raised.

Shared by both halves, which differ in how they wait.
"""

from __future__ import annotations

import logging
import random
import sys
from inspect import isawaitable, iscoroutine, iscoroutinefunction
from typing import TYPE_CHECKING, Final, Literal, TypeVar

from sessionfactory.clock import monotonic
from sessionfactory.config.values import read_all, to_choice, to_count, to_time_limit
from sessionfactory.drivers.commit_stage import Stage, is_of_commit, recorded_stage, stage_of
from sessionfactory.drivers.error_codes import codes_of, is_answer, kind_of
from sessionfactory.drivers.sqlalchemy_private import is_autocommit, of_transaction
from sessionfactory.engine import dialect_hooks
from sessionfactory.errors import CommitUncertainError, commit_outcome, note_outcome
from sessionfactory.interfaces import makes_sessions
from sessionfactory.transactions.verification.marker import MarkersMissingError
from sessionfactory.transactions.verification.watch import VERIFICATIONS, Watch

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sqlalchemy.orm import Session, SessionTransaction

    from sessionfactory.drivers.driver import Kind
    from sessionfactory.transactions.verification.watch import Verification

T = TypeVar("T")

_log: Final = logging.getLogger("sessionfactory")

_WORDS: Final[dict[Kind, str]] = {
    "conflict": "it was in conflict with another transaction",
    "lock timeout": "it waited too long for a lock",
    "lost": "its connection was lost",
    "away": "the server could not be reached",
    "stale plan": "a prepared statement was older than a migration",
}
_LONGEST: Final = 5.0
_BACKOFFS: Final[dict[Kind, tuple[float, float]]] = {"away": (0.05, _LONGEST)}
_BACKOFF: Final = (0.005, 0.5)
"""Seconds that are doubled before each attempt, and the longest time before any; the wait is a
random time below ("full jitter"). Conflicts end soon; a server needs seconds to restart."""

_ASYNC_WORK: Final = (
    "run_in_transaction and run_sync_in_transaction take a plain function; a coroutine function is"
    " for run_in_transaction_async"
)
_PLAIN_WORK: Final = (
    "run_in_transaction_async takes a coroutine function; a plain function is for"
    " run_sync_in_transaction"
)
_UNCERTAIN: Final = (
    "The connection was lost while COMMIT was under way: the transaction may have been committed,"
    " or not. Look for what it wrote before you repeat it. verify_commit finds the outcome out, and"
    " idempotent=True repeats work that does no harm if it is done twice"
)


class Run:
    """All attempts at one transaction: their limits and their errors.

    Args:
        attempts: how many, at most; ``None`` for no limit.
        timeout: seconds after which no other begins; ``None`` for no limit.
        retry_lock_timeout: whether to go on after a lock was waited for too long.
        idempotent: whether the work may be done twice without harm.
        verify_commit: how to find out the outcome of a COMMIT whose reply was lost.

    Raises:
        SettingsError: a limit or a verification that makes no sense.
    """

    __slots__ = (
        *("attempts", "began", "failed", "idempotent", "retry_lock_timeout", "timeout"),
        *("_failed_at", "_failures", "_wait", "verify_commit"),
    )

    def __init__(
        self,
        attempts: int | None,
        timeout: float | None,
        *,
        retry_lock_timeout: bool,
        idempotent: bool,
        verify_commit: Verification,
    ) -> None:
        checked = read_all(
            {
                "attempts": (attempts, to_count),
                "timeout": (timeout, to_time_limit),
                "verify_commit": (verify_commit, _to_verification),
            }
        )
        self.attempts: int | None = checked["attempts"]
        self.timeout: float | None = checked["timeout"]
        self.retry_lock_timeout = retry_lock_timeout
        self.idempotent = idempotent
        self.verify_commit: Verification = checked["verify_commit"]
        self.began: float = monotonic()
        self.failed: Exception | None = None
        """The error of the first attempt, until it is handed to stamina."""
        self._failed_at: float = self.began
        self._failures: list[str] = []
        self._wait: float | None = None

    @property
    def left(self) -> float | None:
        """Seconds until the time is over; a tiny number if it is over."""
        spent = monotonic() - self.began
        return None if self.timeout is None else max(self.timeout - spent, 1e-6)

    @property
    def goes_on(self) -> bool:
        """Whether another attempt may follow the last one's error."""
        return self._wait is not None

    def allow_another(self) -> None:
        """Do not count the last attempt: it failed because the table of markers was missing."""
        if self.attempts is not None:
            self.attempts += 1

    def backoff(self, _error: Exception) -> float | Literal[False]:
        """Return the seconds to wait after the last attempt; ``False`` if no other follows."""
        return False if self._wait is None else self._wait

    def hand_over_first(self) -> None:
        """Raise the error of the first attempt, once: stamina counts it as its own first."""
        error, self.failed = self.failed, None
        if error is not None:
            raise error

    def note(self, error: Exception, kind: Kind | None, took: float) -> None:
        """Record why an attempt failed, and the wait; a ``kind`` of ``None`` ends the run."""
        self.failed = None if self._failures else error
        codes = ", ".join(map(str, codes_of(error)))
        why = type(error).__name__ if kind is None else _WORDS[kind]
        self._failed_at = monotonic()
        after = self._failed_at - self.began
        reason = f"attempt {len(self._failures) + 1}, after {after:.3f} s: {why}"
        self._failures.append(f"{reason} ({codes})" if codes else reason)
        self._wait = None
        if kind is not None:
            shortest, longest = _BACKOFFS.get(kind, _BACKOFF)
            # A wait that is shorter than a transaction ends in the same conflict.
            doubled = max(shortest, took) * 2.0 ** min(len(self._failures), 30)
            longest = max(longest, min(10 * took, _LONGEST))
            self._wait = random.uniform(0, min(longest, doubled))  # noqa: S311 - no secret

    def log_repeat(self, work: Callable[..., object]) -> None:
        """Log that an attempt begins after one that failed: what, why, and after how long."""
        name = getattr(work, "__qualname__", type(work).__name__)
        waited = monotonic() - self._failed_at
        _log.warning("repeating %s, %.3f s after %s", name, waited, self._failures[-1])

    def add_notes(self, error: Exception) -> None:
        """Add a note for each attempt to the last error: no statement, and none of its values."""
        for failure in self._failures:
            error.add_note(f"run_in_transaction, {failure}")


class Attempt:
    """One attempt, and how far it has come."""

    __slots__ = ("_before", "_began", "_ended", "_run", "_transaction", "_watch", "_worked")

    def __init__(self, run: Run) -> None:
        self._run = run
        self._transaction: SessionTransaction | None = None
        self._watch: Watch | None = None
        self._began = monotonic()
        self._worked = self._ended = False
        self._before = sys.exception()  # the context of all later errors

    def begin(self, session: Session) -> None:
        """Note the transaction in which the work runs."""
        self._transaction = session.get_transaction() or session.begin()
        dialect_hooks.watch_commits_of(session)
        if self._run.verify_commit != "off":
            self._watch = Watch(session, self._run.verify_commit, self._run.left)

    def end(self, session: Session) -> None:
        """Note whether the work has ended the transaction itself."""
        self._ended = session.get_transaction() is not self._transaction
        dialect_hooks.watch_commits_of(session)  # it may use other engines by now

    def awaitable(self, result: Awaitable[T]) -> Awaitable[T]:
        """Return what the work of the async half has returned, if it can be awaited.

        Raises:
            TypeError: it cannot be awaited.
        """
        if not isawaitable(result):
            raise TypeError(_PLAIN_WORK)
        return result

    def accept(self, result: T) -> T:
        """Note that the work has succeeded, and return its result.

        Raises:
            TypeError: it is a coroutine, which would never be awaited.
        """
        if iscoroutine(result):
            result.close()
            raise TypeError(_ASYNC_WORK)
        self._worked = True
        return result

    def close(self) -> None:
        """Leave nothing behind on the session's connection."""
        if self._watch is not None:
            self._watch.close()

    def note_cancelled(self, error: BaseException) -> None:
        """Attach the outcome to a cancellation of SQLAlchemy's own sessions, which have none."""
        if self._worked and commit_outcome(error) is None:
            note_outcome(error, "uncertain", "It is not known whether the COMMIT succeeded")

    def judge(self, error: Exception) -> None:
        """Decide whether the transaction is repeated: see ``Run.goes_on``.

        Raises:
            CommitUncertainError: it may have happened, and must not be repeated.
        """
        kind = kind_of(error)
        verdict = self._verdict(error)
        if isinstance(error, MarkersMissingError):
            self._run.allow_another()
            kind = "lost"
        if verdict == "uncertain" and self._run.idempotent:
            kind, verdict = kind or "lost", "repeat"
        if verdict == "ended" and self._run.idempotent:
            verdict = "repeat"
        if verdict != "repeat" or (kind == "lock timeout" and not self._run.retry_lock_timeout):
            kind = None
        self._run.note(error, kind, monotonic() - self._began)
        if verdict == "uncertain" and not isinstance(error, CommitUncertainError):
            raise CommitUncertainError(_UNCERTAIN) from error

    def _verdict(self, error: Exception) -> Literal["repeat", "uncertain", "ended", "over"]:
        """Return whether the transaction may be repeated, or how else it ended."""
        transaction = self._transaction
        if isinstance(error, CommitUncertainError):
            return "uncertain"
        if transaction is None or (self._watch is not None and self._watch.rolled_back):
            return "repeat"
        if any(map(is_autocommit, of_transaction(transaction))):
            return "ended"  # each statement that succeeded
        cause, stage = self._stage(error) if self._worked or self._ended else (error, "before")
        if stage == "commit":
            several = len(of_transaction(transaction)) > 1  # some of them may have committed
            return "repeat" if is_answer(cause) and not several else "uncertain"
        if stage == "before":
            # The work may have committed another transaction, whose COMMIT failed.
            is_lost = is_of_commit(error) and not is_answer(error)
            return "uncertain" if is_lost else "repeat"
        return "over" if self._worked else "ended"

    def _stage(self, error: BaseException) -> tuple[BaseException, Stage | None]:
        """Return where in its commit a transaction failed: by the error, or one in its context."""
        seen = {id(self._before)}
        link: BaseException | None = error
        while link is not None and id(link) not in seen:
            seen.add(id(link))
            recorded = recorded_stage(link)
            if recorded is not None and self._transaction is recorded[1]:
                return link, recorded[0]
            if recorded is not None and self._ended:
                return link, None  # of a later transaction: this one ended before
            stage = stage_of(link)
            if stage is not None:
                return link, stage
            link = link.__context__
        return error, None


def _to_verification(given: object) -> str:
    return to_choice(given, VERIFICATIONS)


def check_work(sessions: object, work: object) -> None:
    """Refuse what is not a factory, and work that is not for the sync half.

    Raises:
        TypeError: it is a session or an engine, a coroutine function, or no function.
    """
    if iscoroutinefunction(work):
        raise TypeError(_ASYNC_WORK)
    check_async_work(sessions, work)


def check_async_work(sessions: object, work: object) -> None:
    """Refuse what is not a factory or not a function.

    A plain function may return something to await: ``Attempt.awaitable`` checks that.

    Raises:
        TypeError: it is a session or an engine, or no function.
    """
    if not makes_sessions(sessions):
        raise TypeError(
            "sessions is a session factory, which opens a session for each attempt, not"
            f" {type(sessions).__name__}"
        )
    if not callable(work):
        raise TypeError(f"work is a function that takes a session, not {type(work).__name__}")
