"""Functions that run after a commit: once, in order, and never for what was rolled back."""

from __future__ import annotations

from inspect import isawaitable, iscoroutine, iscoroutinefunction
from typing import TYPE_CHECKING, Final, cast

import attrs
from sqlalchemy import event
from sqlalchemy.orm import Session
from sqlalchemy.util.concurrency import await_only, in_greenlet

from sessionfactory.drivers.asyncio_ext import AsyncSession
from sessionfactory.drivers.sqlalchemy_private import between_transactions
from sessionfactory.engine import dialect_hooks
from sessionfactory.errors import AfterCommitError, note_outcome

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from sqlalchemy.orm import SessionTransaction

    Callback = Callable[[], object]

# Names of attributes that are added to a session.
_WAITING: Final = "sessionfactory_after_commit"
CAPTURING: Final = "sessionfactory_capturing"
"""Attribute of a session: lists of which the last, if any, gets the callbacks instead of a run."""


def on_commit(session: Session | AsyncSession, callback: Callable[[], object]) -> None:
    """Call a function once the session's transaction is committed: to send the mail.

    It runs after the outermost COMMIT, in the thread or task that commits, after the callbacks that
    were registered before it; it is dropped if the transaction, or the savepoint in which it was
    registered, is rolled back. The transaction is the one that is open, or else the session's next
    one. The session may be used, committed and closed in the callback; ``commit()``, or the scope's
    end, returns when all have run.

    If one fails, the others run, and the data stays committed: nothing is repeated. If the
    committing task is cancelled, the callbacks of a COMMIT that succeeded still run. A Ctrl-C, or a
    cancellation on SQLAlchemy's own ``AsyncSession``, ends the callback that it interrupts, and is
    raised when the others have run.

    Args:
        session: of any factory, ``sessionmaker`` included.
        callback: called without arguments; what it returns is awaited if it can be, which is for
            sessions of the async half.

    Raises:
        TypeError: this is no session or no function, or one to await, on the sync half.
        AfterCommitError: not from here, but from the commit: callbacks failed.
    """
    sync_session = session.sync_session if isinstance(session, AsyncSession) else session
    if not isinstance(sync_session, Session):
        raise TypeError(f"on_commit takes a Session or AsyncSession, not {_kind(session)}")
    if not callable(callback):
        raise TypeError(f"on_commit takes a function without arguments, not {_kind(callback)}")
    if sync_session is session and iscoroutinefunction(callback):
        raise TypeError("a coroutine function is for an AsyncSession; this is a Session")
    waiting = cast("_Waiting | None", vars(sync_session).get(_WAITING))
    if waiting is None:
        waiting = vars(sync_session)[_WAITING] = _Waiting()
        dialect_hooks.watch_commits_of(sync_session)
        event.listen(sync_session, "before_commit", dialect_hooks.watch_commits_of)
        event.listen(sync_session, "after_commit", waiting.mark)
        event.listen(sync_session, "after_transaction_end", waiting.end)
    waiting.add(sync_session, callback)


@attrs.define(eq=False)
class _Waiting:
    """The callbacks of a session's transaction: run after its commit, dropped at its rollback.

    SQLAlchemy's ``after_commit`` is too early to run them: it is sent for savepoints as well, and a
    session that is used in it, or a listener that raises, leaves the session stuck.
    """

    _callbacks: list[tuple[Callback, list[SessionTransaction]]] = attrs.field(
        factory=list[tuple["Callback", "list[SessionTransaction]"]]
    )
    """Each with the savepoints in which it was registered."""
    _committed: SessionTransaction | None = None

    def add(self, session: Session, callback: Callback) -> None:
        savepoints: list[SessionTransaction] = []
        transaction = session.get_nested_transaction()
        while transaction is not None:
            savepoints.append(transaction)
            transaction = transaction.parent
        self._callbacks.append((callback, savepoints))

    def mark(self, session: Session) -> None:
        self._committed = session.get_nested_transaction() or session.get_transaction()

    def end(self, session: Session, transaction: SessionTransaction) -> None:
        is_committed, self._committed = self._committed is transaction, None
        if transaction.nested and not is_committed:
            self._callbacks = [each for each in self._callbacks if transaction not in each[1]]
        if transaction.parent is not None:
            return
        callbacks = [callback for callback, _ in self._callbacks]
        self._callbacks = []
        if is_committed:
            _run(session, callbacks)


def _run(session: Session, callbacks: Sequence[Callback]) -> None:
    capturing = cast("list[list[Callback]]", vars(session).get(CAPTURING, []))
    if capturing:
        capturing[-1].extend(callbacks)
        return
    failures: list[Exception] = []
    interruption: BaseException | None = None
    with between_transactions(session):
        for callback in callbacks:
            try:
                outcome = callback()
                if isawaitable(outcome):
                    _complete(outcome)
            except Exception as error:  # noqa: BLE001 - raised when all have run
                failures.append(error)
            except BaseException as error:  # noqa: BLE001 - so is Ctrl-C: it ends one callback
                interruption = interruption or error
    failed = (
        AfterCommitError(_summary(len(failures), len(callbacks)), failures) if failures else None
    )
    if interruption is not None:
        note_outcome(interruption, "committed", "The transaction is committed")
        raise interruption from failed
    if failed is not None:
        raise failed


def _complete(outcome: Awaitable[object]) -> None:
    if in_greenlet():
        await_only(outcome)
        return
    if iscoroutine(outcome):
        outcome.close()  # otherwise a warning says that it was never awaited
    raise TypeError(
        "a callback of on_commit returned something to await, on a session of the sync half"
    )


def _kind(given: object) -> str:
    return type(given).__name__


def _summary(failures: int, callbacks: int) -> str:
    return (
        "The transaction is committed, and stays so, but of the functions that run after it"
        f" {failures} of {callbacks} failed. Nothing is repeated"
    )
