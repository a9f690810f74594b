"""The books of both rollback fakes: what is begun and ended on the one connection."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary, WeakSet

import attrs
from sqlalchemy.exc import IllegalStateChangeError

from sessionfactory.errors import ClosedError, SharedSessionError
from sessionfactory.pool.call_sites import here
from sessionfactory.testing.rollback._shared_connection import (
    ConcurrentUseError,
    ConnectionLostError,
    InterleavedTransactionsError,
    NotUndoneError,
    OneConnection,
    SessionLeftOpenError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

    from sqlalchemy import Engine, NestedTransaction
    from sqlalchemy.orm import Session, SessionTransaction

    from sessionfactory.errors import SessionFactoryError


@attrs.define(eq=False)
class Begun:
    """A transaction or savepoint that is open on the one connection."""

    session: Session
    opened: str
    """Where the session was opened."""
    transaction: SessionTransaction
    savepoint: NestedTransaction | None
    where: str | None
    refusal: InterleavedTransactionsError | None = None
    """What its end was answered with."""
    blocker: Begun | None = None
    """Because of whom."""

    def __str__(self) -> str:
        if self.where in {None, self.opened}:
            return f"transaction begun at {self.opened}"
        return f"transaction begun at {self.where} (session opened at {self.opened})"


class Undone:
    """One connection, and the books of what is begun and ended on it.

    Args:
        engine: where the connection comes from; it goes back with ``finish``.
    """

    def __init__(self, engine: Engine) -> None:
        self.connection: OneConnection = OneConnection(engine)
        self.capturing: list[list[Callable[[], object]]] = []
        self._opened: WeakKeyDictionary[Session, str] = WeakKeyDictionary()
        self._refused: WeakSet[Session] = WeakSet()  # to close, for a later one was open
        self._stack: list[Begun] = []
        self._over = False

    def joined(self, session: Session, where: str) -> None:
        """Note that a session is on the connection from now on, and where it was opened."""
        self._opened[session] = where

    def usable_by(self, session: Session) -> OneConnection:
        """Return the connection to a session that is about to use it."""
        self._refused.discard(session)  # closing it later would lose something now
        return self.usable()

    def usable(self) -> OneConnection:
        """Return the connection, if it can be used."""
        if self._over:
            raise ClosedError("The block of this rollback fake has ended; it runs nothing any more")
        loss = self.connection.loss
        if loss is not None:
            raise loss
        return self.connection

    def begun(self, transaction: SessionTransaction) -> None:
        """Note that a transaction has its savepoint."""
        session = transaction.session
        savepoint = self.connection.get_nested_transaction()
        self._stack.append(Begun(session, self._opened[session], transaction, savepoint, here()))

    def ended(self, transaction: SessionTransaction) -> None:
        """Note that a transaction is over."""
        position = self._position(transaction)
        if position is None:
            return
        savepoint = self._stack.pop(position).savepoint
        if savepoint is not None and savepoint is self.connection.get_nested_transaction():
            savepoint.close()  # SQLAlchemy leaves one whose release failed in everybody's way

    def check_close(self, session: Session) -> None:
        """Raise if a session cannot be closed now; it is, once what began later has ended."""
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
        mine = self._stack[position]
        later = self._later(position)
        if later is None:
            return
        # A scope that fails to commit rolls back, and then closes: these are one error, not three.
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
        with self.connection.turn:
            if commits:
                self.usable()
            self.check(transaction)
            try:
                yield
            finally:  # it may end with an error: what follows a commit can fail
                self._close_refused()

    def finish(self) -> SessionFactoryError | None:
        """Undo everything, give the connection back, and return what was wrong."""
        left = {session: at for session, at in self._opened.items() if session.in_transaction()}
        self._over = True
        self._stack.clear()
        problem: SessionFactoryError | None
        try:
            with self.connection.turn:
                problem = self.connection.give_back()
        except ConcurrentUseError as error:
            problem = error
            # A driver may crash the process if its connection is closed while a thread is inside.
            self.connection.turn.leave_to_last(self.connection.give_back)
        for session in left:
            # Whoever is amid a call of it, or its commit, finds the fake closed, and closes it.
            with suppress(SharedSessionError, IllegalStateChangeError):
                session.close()
        return problem or (_left_open(left.values()) if left else None)

    def _position(self, transaction: SessionTransaction) -> int | None:
        found = (i for i, begun in enumerate(self._stack) if begun.transaction is transaction)
        return next(found, None)

    def _later(self, position: int) -> Begun | None:
        """Return the first that another session has begun after the one in this position."""
        mine = self._stack[position].session
        return next((b for b in self._stack[position:] if b.session is not mine), None)

    def _close_refused(self) -> None:
        """Close sessions that had to wait for this end, as those of a scope that could not end."""
        waiting = [n for n, begun in enumerate(self._stack) if begun.session in self._refused]
        for position in reversed(waiting):
            if self._later(position) is not None:
                return
            self._stack[position].session.close()


def _left_open(places: Iterable[str]) -> SessionLeftOpenError:
    message = (
        "The block of a rollback fake ended while a session had a transaction that was neither"
        " committed nor rolled back. All is undone; close the sessions opened at:"
    )
    return SessionLeftOpenError("\n  - ".join([message, *sorted(places)]))


def told(problem: SessionFactoryError | None, error: BaseException | None) -> None:
    """Tell what was wrong with a block; one that raised itself is told only what explains it."""
    if problem is None:
        return
    if error is None:
        raise problem
    if isinstance(problem, ConnectionLostError | NotUndoneError):
        error.add_note(str(problem))


def running(undone: Undone | None) -> Undone:
    """Return the books of a fake that is inside its block."""
    if undone is None:
        raise ClosedError("A rollback fake opens sessions only inside its block: with … as fake:")
    return undone


def refuse_second_block(undone: Undone | None) -> None:
    """Raise for a fake that is inside its block already."""
    if undone is not None:
        raise RuntimeError(
            "This rollback fake is inside its block already. For a session, call it:"
            " with fake() as session, or with fake.begin() as session"
        )
