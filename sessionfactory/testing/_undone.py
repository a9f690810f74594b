"""What both rollback fakes share: sessions that nest in one transaction that is never committed."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, cast
from weakref import WeakSet, WeakValueDictionary

import attrs
from sqlalchemy import Connection, event
from sqlalchemy.exc import IllegalStateChangeError
from sqlalchemy.orm import Session, SessionTransaction

from sessionfactory.engine.places import here
from sessionfactory.errors import ClosedError, SharedSessionError
from sessionfactory.testing._one_connection import (
    ConcurrentUseError,
    ConnectionLostError,
    InterleavedTransactionsError,
    NotUndoneError,
    OneConnection,
    SessionLeftOpenError,
)
from sessionfactory.transactions.after_commit import CAPTURING

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from sqlalchemy import Engine, NestedTransaction

    from sessionfactory.errors import SessionFactoryError


class UndoneSession(Session):
    """The part of a fake's sessions that goes before their own class.

    Its attributes have a prefix that those of a user's class will not have.
    """

    undone: Undone
    undone_opened: str
    undone_close_refused: bool

    def get_bind(self, *_: Any, **__: Any) -> Connection:
        """Return the one connection, for every mapper and statement."""
        self.undone_close_refused = (
            False  # it is used again, so closing it later would lose something
        )
        return self.undone.usable()

    def close(self) -> None:
        """Close the session, unless a transaction that began later is open."""
        self._check_before_close()
        super().close()

    def reset(self) -> None:
        """Reset the session, unless a transaction that began later is open."""
        self._check_before_close()
        super().reset()

    def invalidate(self) -> None:
        """Close the session and the one connection."""
        self._check_before_close()
        super().invalidate()

    def _check_before_close(self) -> None:
        # SQLAlchemy's ``close`` forgets the objects before it ends the transaction.
        root = self.get_transaction()
        if root is not None:
            try:
                self.undone.check(root)
            except InterleavedTransactionsError:
                self.undone_close_refused = True
                raise


class UndoneTransaction(SessionTransaction):
    """A transaction, or savepoint, of a fake's session; its ends are checked first.

    There is no event before a rollback, and none that could stop a savepoint's release in time.
    """

    def commit(self, _to_root: bool = False) -> None:  # noqa: FBT001, FBT002 - SQLAlchemy's
        """Commit, unless a transaction that began later is open."""
        ended = _boundary(self, to_root=True) if _to_root else self
        with _undone_of(self).ending(ended, commits=True):
            super().commit(_to_root)

    def rollback(self, _capture_exception: bool = False, _to_root: bool = False) -> None:  # noqa: FBT001, FBT002
        """Roll back, unless a transaction that began later is open."""
        # A flush that fails takes the transaction around it with it.
        with _undone_of(self).ending(_boundary(self, to_root=_to_root)):
            super().rollback(_capture_exception, _to_root)

    def close(self, invalidate: bool = False) -> None:  # noqa: FBT001, FBT002
        """Close, unless a transaction that began later is open."""
        with _undone_of(self).ending(self):
            super().close(invalidate)


def _undone_of(transaction: SessionTransaction) -> Undone:
    return cast("UndoneSession", transaction.session).undone


def _boundary(transaction: SessionTransaction, *, to_root: bool) -> SessionTransaction:
    """Return the savepoint, or the outermost transaction, that a transaction is part of."""
    parent = transaction.parent
    while parent is not None and (to_root or not transaction.nested):
        transaction, parent = parent, parent.parent
    return transaction


@event.listens_for(UndoneSession, "after_transaction_create")
def _guard(_session: Session, transaction: SessionTransaction) -> None:
    transaction.__class__ = UndoneTransaction


@event.listens_for(UndoneSession, "after_begin")
def _note_begin(session: Session, transaction: SessionTransaction, _: Connection) -> None:
    _undone_of(transaction).begun(cast("UndoneSession", session), transaction)


@event.listens_for(UndoneSession, "after_transaction_end")
def _note_end(_session: Session, transaction: SessionTransaction) -> None:
    _undone_of(transaction).ended(transaction)


# One subclass for each class of sessions: SQLAlchemy keeps listeners for each. It goes with its
# sessions, because users make session classes, as every ``sessionmaker`` does.
_CLASSES: Final[WeakValueDictionary[type[Session], type[UndoneSession]]] = WeakValueDictionary()


def _undone_class(of: type[Session]) -> type[UndoneSession]:
    made = _CLASSES.get(of)
    if made is None:
        made = _CLASSES[of] = cast(
            "type[UndoneSession]", type(of.__name__, (UndoneSession, of), {})
        )
    return made


@attrs.define(eq=False)
class Begun:
    """A transaction or savepoint that is open on the one connection."""

    session: UndoneSession
    transaction: SessionTransaction
    savepoint: NestedTransaction | None
    where: str | None
    refusal: InterleavedTransactionsError | None = None
    """What its end was answered with."""
    blocker: Begun | None = None
    """Because of whom."""

    def __str__(self) -> str:
        opened = self.session.undone_opened
        if self.where in {None, opened}:
            return f"transaction begun at {opened}"
        return f"transaction begun at {self.where} (session opened at {opened})"


class Undone:
    """One connection, and the books of what is begun and ended on it.

    Args:
        engine: where the connection comes from; it goes back with ``finish``.
    """

    def __init__(self, engine: Engine) -> None:
        self.connection: OneConnection = OneConnection(engine)
        self.capturing: list[list[Callable[[], object]]] = []
        self._sessions: WeakSet[UndoneSession] = WeakSet()
        self._stack: list[Begun] = []
        self._over = False

    def adopt(self, session: Session) -> None:
        """Move a new session to the one connection.

        The session is one that the user's factory made, so that it has its class and options.
        """
        if not isinstance(session, Session):
            raise TypeError(f"expected a factory of Session, not of {type(session).__name__}")
        if isinstance(session, UndoneSession):
            raise TypeError("the factory gave a session that it had given before")
        if session.in_transaction():
            session.close()
            raise TypeError("the factory's sessions begin a transaction of their own when opened")
        session.__class__ = _undone_class(type(session))
        adopted = cast("UndoneSession", session)
        adopted.undone = self
        adopted.undone_opened = here() or "an unknown place"
        adopted.undone_close_refused = False
        adopted.bind = self.connection
        adopted.join_transaction_mode = "create_savepoint"
        vars(adopted)[CAPTURING] = self.capturing
        self._sessions.add(adopted)

    def usable(self) -> OneConnection:
        """Return the connection, if it can be used."""
        if self._over:
            raise ClosedError("The block of this rollback fake has ended; it runs nothing any more")
        loss = self.connection.loss
        if loss is not None:
            raise loss
        return self.connection

    def begun(self, session: UndoneSession, transaction: SessionTransaction) -> None:
        """Note that a transaction has its savepoint."""
        savepoint = self.connection.get_nested_transaction()
        self._stack.append(Begun(session, transaction, savepoint, here()))

    def ended(self, transaction: SessionTransaction) -> None:
        """Note that a transaction is over."""
        position = self._position(transaction)
        if position is None:
            return
        savepoint = self._stack.pop(position).savepoint
        if savepoint is not None and savepoint is self.connection.get_nested_transaction():
            savepoint.close()  # SQLAlchemy leaves one whose release failed in everybody's way

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
            yield
            self._close_refused()

    def finish(self) -> SessionFactoryError | None:
        """Undo everything, give the connection back, and return what was wrong."""
        left = [session for session in self._sessions if session.in_transaction()]
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
        return problem or (_left_open(left) if left else None)

    def _position(self, transaction: SessionTransaction) -> int | None:
        found = (i for i, begun in enumerate(self._stack) if begun.transaction is transaction)
        return next(found, None)

    def _later(self, position: int) -> Begun | None:
        """Return the first that another session has begun after the one in this position."""
        mine = self._stack[position].session
        return next((b for b in self._stack[position:] if b.session is not mine), None)

    def _close_refused(self) -> None:
        """Close sessions that had to wait for this end, as those of a scope that could not end."""
        waiting = [n for n, begun in enumerate(self._stack) if begun.session.undone_close_refused]
        for position in reversed(waiting):
            if self._later(position) is not None:
                return
            self._stack[position].session.close()


def _left_open(sessions: list[UndoneSession]) -> SessionLeftOpenError:
    places = sorted(session.undone_opened for session in sessions)
    message = (
        "The block of a rollback fake ended while a session had a transaction that was neither"
        " committed nor rolled back. All is undone; close the sessions opened at:"
    )
    return SessionLeftOpenError("\n  - ".join([message, *places]))


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
