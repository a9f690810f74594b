"""Every error that this package raises on its own account.

SessionFactoryError
├── SettingsError (also ValueError)          configuration that cannot be used; lists every fault
├── NotConfiguredError (also RuntimeError)   a database that is not configured was used
├── ClosedError (also RuntimeError)          a factory or registry was used after ``close()``
├── SharedSessionError                       two threads or tasks used one session at a time
├── ReadOnlyError                            a read-only transaction tried to write
├── AfterCommitError (also ExceptionGroup)   callbacks after a commit failed
├── LockUnavailableError                     a named lock was held by another transaction
├── CommitRolledBackError                    a COMMIT saved nothing: a statement had failed before
├── CommitUncertainError                     a COMMIT was sent, and may have happened or not
├── MarkersMissingError                      the table of verify_commit="marker" was missing
├── EventLoopError (also RuntimeError)       an async factory was used in two event loops at once
├── ForkedConnectionError                    a forked process used a connection of its parent
├── PoolExhaustedError (also sqlalchemy.exc.TimeoutError)
│                                            no connection was returned in time; lists the holders
│   └── PoolDeadlockError                    all holders wait for another connection
├── ConnectTimeoutError (also sqlalchemy.exc.TimeoutError)
│                                            no connection could be opened in time
└── of sessionfactory.testing
    ├── ConformanceError (also AssertionError)  a factory breaks promises of the interface
    ├── InterleavedTransactionsError            a transaction ended while a later one was open
    ├── QueryBudgetError (also AssertionError)  a block sent more statements than it may
    ├── IsolationError                          a test left a session open, or lost its database
    ├── ConcurrentUseError                      two threads or tasks in one connection
    ├── SessionLeftOpenError                    a test left a transaction open
    ├── ConnectionLostError                     a test lost the connection under its fake
    └── NotUndoneError                          something was committed that cannot be undone

Those that are SQLAlchemy's ``TimeoutError`` live in ``sessionfactory.pool_errors``, because this
module must not import SQLAlchemy. SQLAlchemy's own errors pass through untouched. No message
contains a secret.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final, Literal, TypeAlias, cast

from sessionfactory._lazy import publish

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

CommitOutcome: TypeAlias = Literal["committed", "rolled back", "uncertain"]
PAGES: Final = "https://sessionfactory.readthedocs.io/en/stable/"
"""The address of the documentation."""
_OUTCOME: Final = "__commit_outcome__"
_CANCELLED: Final = "CancelledError"  # by its name: asyncio is not loaded for it


class SessionFactoryError(Exception):
    """Base of all errors of this package."""

    _has_page: ClassVar[bool] = False
    """Whether a traceback ends with the address of its section: where there is more to do than a
    sentence can hold. It is a note, so that ``str`` is what happened, and no more."""

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)
        if self._has_page:
            name = type(self).__name__.lower()
            self.add_note(f"What to do: {PAGES}reference/errors.html#{name}")


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with a configuration."""

    path: str
    """Where it is: ``default.pool.size``, or ``size`` when a settings class was built directly."""
    problem: str
    """What was expected, and what to do. Never the text that was given: it may be a secret."""
    origin: str | None = None
    """Where it was set: an environment variable, or a key of a file; ``None`` in code."""

    def __str__(self) -> str:
        if not self.path:
            return f"{self.origin}: {self.problem}" if self.origin else self.problem
        origin = f" ({self.origin})" if self.origin else ""
        return f"{self.path}{origin}: {self.problem}"


class SettingsError(SessionFactoryError, ValueError):
    """A configuration cannot be used; ``faults`` lists everything that is wrong with it."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults: tuple[Fault, ...] = tuple(faults)
        super().__init__(self.faults)

    def __str__(self) -> str:
        if len(self.faults) == 1:
            return f"Invalid database settings: {self.faults[0]}"
        lines = [f"Invalid database settings, {len(self.faults)} faults:", *map(str, self.faults)]
        return "\n  - ".join(lines)


class SettingsWarning(UserWarning):
    """Something in a configuration can be used, but is probably not what was meant."""


class NotConfiguredError(SessionFactoryError, RuntimeError):
    """A database was used that is not configured; the message names the setting to add."""


class ClosedError(SessionFactoryError, RuntimeError):
    """A factory, or the registry that owns it, was used after it had been closed."""


class SharedSessionError(SessionFactoryError):
    """A thread or task called a session while another one was inside a call of it.

    The session is as it was: the call was refused before it did anything.
    """

    _has_page = True


class LockUnavailableError(SessionFactoryError):
    """A named lock was not acquired in time: another transaction holds it. Nothing was done."""


class ReadOnlyError(SessionFactoryError):
    """The database refused a write, because the transaction is read-only."""


class CommitRolledBackError(SessionFactoryError):
    """A transaction was to be committed that the database had given up: nothing of it is saved.

    A statement failed, its error was caught, and the transaction went on to its end. PostgreSQL
    then answers COMMIT with ROLLBACK, and MySQL, MariaDB and SQLite have rolled back with the
    error; no driver raises one. To go on after an expected error, put the statement in a savepoint:
    ``with session.begin_nested():``.
    """

    def __init__(self, message: str, meanings: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.meanings: tuple[str, ...] = meanings
        """What the error of that statement means, as ``is_transient`` sees it."""


class CommitUncertainError(SessionFactoryError):
    """A COMMIT was sent and no answer was received: it may have happened or not."""

    _has_page = True


class AfterCommitError(SessionFactoryError, ExceptionGroup[Exception]):
    """Callbacks after a commit failed; ``exceptions`` holds what they raised.

    The data is committed, all callbacks were called, and nothing is tried again.
    ``except*`` finds what is inside.
    """

    def derive(self, excs: Sequence[Exception]) -> AfterCommitError:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return an error of the same kind, with a part of the failures; for ``except*``."""
        return AfterCommitError(self.message, excs)


class EventLoopError(SessionFactoryError, RuntimeError):
    """An async factory was used in an event loop while another one, which it belongs to, runs."""

    _has_page = True


class ForkedConnectionError(SessionFactoryError):
    """A process used a connection that the process from which it was forked has in use."""

    _has_page = True


def note_outcome(error: BaseException, outcome: CommitOutcome, note: str = "") -> None:
    """Attach the outcome of a COMMIT to the error that interrupted it; see ``commit_outcome``."""
    vars(error)[_OUTCOME] = outcome
    if note:
        error.add_note(note)


def commit_outcome(error: BaseException) -> CommitOutcome | None:
    """Return the outcome of the COMMIT that was under way when an error was raised.

    On sessions of this package, a COMMIT that was sent is finished before a cancellation is
    delivered, and the error that carries the cancellation (``CancelledError``, or the
    ``TimeoutError`` of ``asyncio.timeout``) has its outcome. So has an error or a Ctrl-C that
    struck COMMIT, and each error of this package that is about one. Scopes of anyio and a
    ``TaskGroup`` swallow the ``CancelledError``: catch it inside of them.

    Args:
        error: what the caller of ``begin()``, ``commit()`` or ``run_in_transaction`` caught. Errors
            that it was raised ``from`` count as well; one that was merely handled at the time does
            not, because it may belong to another transaction.

    Returns:
        ``"committed"``, ``"rolled back"`` or ``"uncertain"``; ``None`` if no COMMIT was under way:
        what had not been committed before is rolled back.
    """
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        outcome = cast("CommitOutcome | None", vars(link).get(_OUTCOME)) or _inherent(link)
        if outcome is not None:
            return outcome
        link = link.__cause__ or _interrupted_by(link)
    return None


def _interrupted_by(error: BaseException) -> BaseException | None:
    """Return the cancellation that ``asyncio.run`` turned into a Ctrl-C while it handled it."""
    cancelled = error.__context__
    is_theirs = isinstance(error, KeyboardInterrupt) and type(cancelled).__name__ == _CANCELLED
    return cancelled if is_theirs else None


def _inherent(error: BaseException) -> CommitOutcome | None:
    """Return the outcome that an error of this package has by its class."""
    if isinstance(error, CommitUncertainError):
        return "uncertain"
    if isinstance(error, CommitRolledBackError):
        return "rolled back"
    return "committed" if isinstance(error, AfterCommitError) else None


publish(
    SessionFactoryError,
    Fault,
    SettingsError,
    SettingsWarning,
    NotConfiguredError,
    ClosedError,
    SharedSessionError,
    ReadOnlyError,
    CommitRolledBackError,
    CommitUncertainError,
    AfterCommitError,
    EventLoopError,
    ForkedConnectionError,
    LockUnavailableError,
)
