"""The sessions of both rollback fakes: they nest in one transaction that is never committed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast
from weakref import WeakValueDictionary

from sqlalchemy import Connection, event
from sqlalchemy.orm import Session, SessionTransaction

from sessionfactory.pool.call_sites import here
from sessionfactory.transactions.after_commit import CAPTURING

if TYPE_CHECKING:
    from sessionfactory.testing.rollback._open_transactions import OpenTransactions


class RollbackSession(Session):
    """Mixin of a fake's sessions, before their own class."""

    transactions: OpenTransactions

    def get_bind(self, *_: Any, **__: Any) -> Connection:
        """Return the one connection, for every mapper and statement."""
        return self.transactions.connection_of(self)

    def close(self) -> None:
        """Close the session, unless a transaction that began later is open."""
        # Before SQLAlchemy's, which forgets the objects before it ends the transaction.
        self.transactions.check_close(self)
        super().close()

    def reset(self) -> None:
        """Reset the session, unless a transaction that began later is open."""
        self.transactions.check_close(self)
        super().reset()

    def invalidate(self) -> None:
        """Close the session and the one connection."""
        self.transactions.check_close(self)
        super().invalidate()


class RollbackTransaction(SessionTransaction):
    """A transaction, or savepoint, of a fake's session; each end is checked first.

    There is no event before a rollback, and none that could prevent a savepoint's release.
    """

    def commit(self, _to_root: bool = False) -> None:  # noqa: FBT001, FBT002 - SQLAlchemy's
        """Commit, unless a transaction that began later is open."""
        ended = _boundary(self, to_root=True) if _to_root else self
        with _transactions_of(self).ending(ended, commits=True):
            super().commit(_to_root)

    def rollback(self, _capture_exception: bool = False, _to_root: bool = False) -> None:  # noqa: FBT001, FBT002
        """Roll back, unless a transaction that began later is open."""
        # A flush that fails takes the transaction around it with it.
        with _transactions_of(self).ending(_boundary(self, to_root=_to_root)):
            super().rollback(_capture_exception, _to_root)

    def close(self, invalidate: bool = False) -> None:  # noqa: FBT001, FBT002
        """Close, unless a transaction that began later is open."""
        with _transactions_of(self).ending(self):
            super().close(invalidate)


def _transactions_of(transaction: SessionTransaction) -> OpenTransactions:
    return cast("RollbackSession", transaction.session).transactions


def _boundary(transaction: SessionTransaction, *, to_root: bool) -> SessionTransaction:
    """Return the savepoint, or the outermost transaction, that a transaction is part of."""
    parent = transaction.parent
    while parent is not None and (to_root or not transaction.nested):
        transaction, parent = parent, parent.parent
    return transaction


@event.listens_for(RollbackSession, "after_transaction_create")
def _guard(_session: Session, transaction: SessionTransaction) -> None:
    transaction.__class__ = RollbackTransaction


@event.listens_for(RollbackSession, "after_begin")
def _note_begin(_session: Session, transaction: SessionTransaction, _: Connection) -> None:
    _transactions_of(transaction).record_begin(transaction)


@event.listens_for(RollbackSession, "after_transaction_end")
def _note_end(_session: Session, transaction: SessionTransaction) -> None:
    _transactions_of(transaction).record_end(transaction)


# One subclass for each class of sessions: SQLAlchemy keeps listeners for each. It goes with its
# sessions, because users make session classes, as every ``sessionmaker`` does.
_CLASSES: Final[WeakValueDictionary[type[Session], type[RollbackSession]]] = WeakValueDictionary()


def _rollback_class(of: type[Session]) -> type[RollbackSession]:
    made = _CLASSES.get(of)
    if made is None:
        made = _CLASSES[of] = cast(
            "type[RollbackSession]", type(of.__name__, (RollbackSession, of), {})
        )
    return made


def bind_session(session: Session, transactions: OpenTransactions) -> None:
    """Move a new session to the one connection of a fake.

    The session is one that the user's factory made, so that it has its class and options.

    Raises:
        TypeError: it is no session, or no new one.
    """
    if not isinstance(session, Session):
        raise TypeError(f"expected a factory of Session, not of {type(session).__name__}")
    if isinstance(session, RollbackSession):
        raise TypeError("the factory gave a session that it had given before")
    if session.in_transaction():
        session.close()
        raise TypeError("the factory's sessions begin a transaction of their own when opened")
    session.__class__ = _rollback_class(type(session))
    bound = cast("RollbackSession", session)
    bound.transactions = transactions
    bound.bind = transactions.connection
    bound.join_transaction_mode = "create_savepoint"
    vars(bound)[CAPTURING] = transactions.capturing
    transactions.add_session(bound, here() or "an unknown place")
