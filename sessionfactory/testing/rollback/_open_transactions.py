"""The transactions that are open on the one connection of a rollback fake, for both halves."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary, WeakSet

import attrs
from sqlalchemy.exc import DBAPIError, IllegalStateChangeError

from sessionfactory.errors import ClosedError, SharedSessionError
from sessionfactory.pool.call_sites import here
from sessionfactory.testing.rollback._shared_connection import (
    ConcurrentUseError,
    ConnectionLostError,
    InterleavedTransactionsError,
    NotUndoneError,
    SessionLeftOpenError,
    SharedConnection,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

    from sqlalchemy import Engine, NestedTransaction
    from sqlalchemy.orm import Session, SessionTransaction

    from sessionfactory.errors import SessionFactoryError


@attrs.define(eq=False)
class OpenTransaction:
    """A transaction or savepoint that is open on the one connection."""

    session: Session
    opened: str
    """Call site where the session was opened."""
    transaction: SessionTransaction
    savepoint: NestedTransaction | None
    where: str | None
    """Call site where the transaction was begun."""
    refusal: InterleavedTransactionsError | None = None
    """The error that its end raised."""
    blocker: OpenTransaction | OpenSavepoint | None = None
    """The later transaction that caused the refusal."""

    def __str__(self) -> str:
        if self.where in {None, self.opened}:
            return f"transaction begun at {self.opened}"
        return f"transaction begun at {self.where} (session opened at {self.opened})"


@attrs.define(eq=False)
class OpenSavepoint:
    """A savepoint of the fake itself, as for one test of a module; no session ends it."""

    savepoint: NestedTransaction
    where: str
    earlier: WeakSet[Session]
    """The sessions that were opened before it."""
    session: None = None

    def __str__(self) -> str:
        return f"savepoint of the rollback fake made at {self.where}"


class OpenTransactions:
    """One connection, and the transactions that are open on it, as a stack.

    Args:
        engine: where the connection is checked out; ``finish`` checks it in.
    """

    def __init__(self, engine: Engine) -> None:
        self.connection: SharedConnection = SharedConnection(engine)
        self.capturing: list[list[Callable[[], object]]] = []
        self._opened: WeakKeyDictionary[Session, str] = WeakKeyDictionary()
        # Sessions to close once the later transaction, which prevented it, has ended.
        self._refused: WeakSet[Session] = WeakSet()
        self._stack: list[OpenTransaction | OpenSavepoint] = []
        self._over = False

    def add_session(self, session: Session, where: str) -> None:
        """Record a session that works on the connection, and where it was opened."""
        self._opened[session] = where

    def connection_of(self, session: Session) -> SharedConnection:
        """Return the connection for a session that is about to use it."""
        self._refused.discard(session)  # it is in use again: do not close it later
        return self.usable_connection()

    def usable_connection(self) -> SharedConnection:
        """Return the connection.

        Raises:
            ClosedError: the block of the fake has ended.
            ConnectionLostError: the connection cannot be used any more.
        """
        if self._over:
            raise ClosedError("The block of this rollback fake has ended; it runs nothing any more")
        loss = self.connection.loss
        if loss is not None:
            raise loss
        return self.connection

    def record_begin(self, transaction: SessionTransaction) -> None:
        """Record a transaction whose savepoint was just made."""
        session = transaction.session
        savepoint = self.connection.get_nested_transaction()
        opened = self._opened[session]
        self._stack.append(OpenTransaction(session, opened, transaction, savepoint, here()))

    def record_end(self, transaction: SessionTransaction) -> None:
        """Record that a transaction has ended."""
        position = self._position(transaction)
        if position is None:
            return
        savepoint = self._stack.pop(position).savepoint
        if savepoint is not None and savepoint is self.connection.get_nested_transaction():
            savepoint.close()  # SQLAlchemy leaves it current when its release fails

    def check_close(self, session: Session) -> None:
        """Raise if a session cannot be closed now; it is closed when the later transaction ends."""
        root = session.get_transaction()
        if root is None:
            return
        try:
            self.check(root)
        except InterleavedTransactionsError:
            self._refused.add(session)
            raise

    def check(self, transaction: SessionTransaction) -> None:
        """Raise if a transaction of another session began after this one and is open."""
        position = self._position(transaction)
        if position is None or self.connection.loss is not None:
            return
        mine, later = self._stack[position], self._later(position)
        if later is None or isinstance(mine, OpenSavepoint):
            return
        # A scope that fails to commit rolls back, and then closes: one error for the three calls.
        if mine.refusal is None or mine.blocker is not later:
            mine.blocker = later
            mine.refusal = InterleavedTransactionsError(
                f"The {mine} cannot end now, by commit, rollback or close:"
                f" the {later} began later and is still open. The sessions of a rollback fake share"
                " one connection, on which transactions nest: end the later one first. Nothing was"
                " changed."
            )
        raise mine.refusal

    @contextmanager
    def ending(self, transaction: SessionTransaction, *, commits: bool = False) -> Generator[None]:
        """Run the end of a transaction, if it may end now."""
        if self._position(transaction) is None:  # nothing of it is on the connection
            yield
            return
        with self.connection.exclusive:
            if commits:
                self.usable_connection()
            self.check(transaction)
            try:
                yield
            finally:  # also if the end raised: what follows a commit can fail
                self._close_refused()

    def finish(self) -> SessionFactoryError | None:
        """Undo everything, check the connection in, and return the problem, if any."""
        left = {session: at for session, at in self._opened.items() if session.in_transaction()}
        self._over = True
        self._stack.clear()
        problem: SessionFactoryError | None
        try:
            with self.connection.exclusive:
                problem = self.connection.release()
        except ConcurrentUseError as error:
            problem = error
            # A driver may crash the process if its connection is closed while it is in use.
            self.connection.exclusive.run_when_free(self.connection.release)
        _close_all(left)
        return problem or (_left_open(left.values()) if left else None)

    def open_savepoint(self) -> OpenSavepoint:
        """Make a savepoint of the fake itself.

        Raises:
            ClosedError: the block of the fake has ended.
            ConnectionLostError: the connection cannot be used any more.
        """
        with self.connection.exclusive:
            savepoint = self.usable_connection().begin_nested()
            made = OpenSavepoint(savepoint, here() or "an unknown place", WeakSet(self._opened))
            self._stack.append(made)
        return made

    def undo_to(self, made: OpenSavepoint) -> SessionFactoryError | None:
        """Undo everything since a savepoint of the fake, and return the problem, if any.

        Sessions that were opened since are closed; the transactions of earlier ones that began
        since are rolled back.
        """
        try:
            with self.connection.exclusive:
                if made not in self._stack:  # the fake's block has ended, or an outer savepoint
                    return None
                left = {
                    session: opened
                    for session, opened in self._opened.items()
                    if session not in made.earlier and session.in_transaction()
                }
                problem = self.connection.loss or self._unwind(made)
        except ConcurrentUseError as error:
            return error
        _close_all(left)
        return problem or (_left_open(left.values()) if left else None)

    def _unwind(self, made: OpenSavepoint) -> SessionFactoryError | None:
        """End what is later than a savepoint, the latest first, and then the savepoint."""
        while (latest := self._stack[-1]) is not made:
            if isinstance(latest, OpenTransaction) and latest.session.in_transaction():
                with suppress(SharedSessionError, IllegalStateChangeError, DBAPIError):
                    latest.transaction.rollback()
            if self._stack[-1] is latest:
                self._stack.pop()
        self._stack.pop()
        return self.connection.undo_to(made.savepoint)

    def _position(self, transaction: SessionTransaction) -> int | None:
        for position, each in enumerate(self._stack):
            if isinstance(each, OpenTransaction) and each.transaction is transaction:
                return position
        return None

    def _later(self, position: int) -> OpenTransaction | OpenSavepoint | None:
        """Return the first entry above a position that does not belong to the same session."""
        mine = self._stack[position].session
        return next((each for each in self._stack[position:] if each.session is not mine), None)

    def _close_refused(self) -> None:
        """Close sessions whose close was refused, once no later transaction is open."""
        for position in reversed(range(len(self._stack))):
            session = self._stack[position].session
            if session is None or session not in self._refused:
                continue
            if self._later(position) is not None:
                return
            session.close()


def _close_all(sessions: Iterable[Session]) -> None:
    for session in sessions:
        # One that another thread or task is using finds the fake closed, and is closed there.
        with suppress(SharedSessionError, IllegalStateChangeError):
            session.close()


def _left_open(places: Iterable[str]) -> SessionLeftOpenError:
    message = (
        "The block of a rollback fake ended while a session had a transaction that was neither"
        " committed nor rolled back. All is undone; close the sessions opened at:"
    )
    return SessionLeftOpenError("\n  - ".join([message, *sorted(places)]))


def raise_problem(problem: SessionFactoryError | None, error: BaseException | None) -> None:
    """Raise the problem of a block; if the block raised, only note what explains its error."""
    if problem is None:
        return
    if error is None:
        raise problem
    if isinstance(problem, ConnectionLostError | NotUndoneError):
        error.add_note(str(problem))


def require_open(transactions: OpenTransactions | None) -> OpenTransactions:
    """Return the open transactions of a fake, or raise if it is not inside its block."""
    if transactions is None:
        raise ClosedError("A rollback fake opens sessions only inside its block: with … as fake:")
    return transactions


def require_not_entered(transactions: OpenTransactions | None) -> None:
    """Raise for a fake that is inside its block already."""
    if transactions is not None:
        raise RuntimeError(
            "This rollback fake is inside its block already. For a session, call it:"
            " with fake() as session, or with fake.begin() as session"
        )
