"""Sessions that one thread or task uses at a time; a concurrent call of another one is refused.

SQLAlchemy's own rule is "not concurrently", and it notices a breach late, or never. No event marks
the end of a call, so a subclass wraps the calls. It stands between the user's class and
``Session``: what the user overrides comes first, and its calls of ``super()`` pass here, too.

The close of a scope that ends while another call is inside the session is made up for when that
call leaves; else the connection would be lost. A closed session stays closed.
"""

from __future__ import annotations

import asyncio
import logging
import types
from asyncio import _get_running_loop
from functools import wraps
from threading import get_ident
from typing import TYPE_CHECKING, Final, ParamSpec, Self, TypeVar, cast
from weakref import WeakValueDictionary

from sqlalchemy import event
from sqlalchemy.exc import IllegalStateChangeError
from sqlalchemy.orm import Session, SessionTransaction, SessionTransactionOrigin

from sessionfactory.drivers import commit_stage, sqlalchemy_private
from sessionfactory.errors import ClosedError, SharedSessionError
from sessionfactory.pool.tracked import note_session
from sessionfactory.sessions.refusals import busy, closed

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from sqlalchemy import Connection

    from sessionfactory.pool.owners import Owner

S = TypeVar("S", bound=Session)
P = ParamSpec("P")
T = TypeVar("T")

# What is added to a session has names that clash with nobody's.
_VISIT: Final = "sessionfactory_visit"
_DUE: Final = "sessionfactory_due"
_OUTER: Final = "sessionfactory_outer"
_CLOSED: Final[tuple[int, str]] = (0, "close")
"""Stands for the visit of a closed session, which lets no call in."""
_ALLOWED_WHEN_CLOSED: Final = frozenset({"close", "expunge", "invalidate", "reset", "rollback"})

_log = logging.getLogger("sessionfactory")

CALLS: Final = (
    *("add", "add_all", "delete", "delete_all", "merge", "merge_all", "expunge"),
    *("bulk_insert_mappings", "bulk_save_objects", "bulk_update_mappings"),
    *("connection", "execute", "scalar", "scalars", "get", "get_one", "refresh"),
    *("expire", "expire_all", "enable_relationship_loading"),
    *("flush", "prepare", "commit", "rollback", "reset", "invalidate"),
)
"""The calls that are guarded, beside ``begin`` and ``close``, which are written out below.

``begin_nested`` is a ``begin``. ``expunge_all`` is left out, for it is all that ``close`` does to a
session without a transaction. The rest of the calls only read, or set the session up.
"""


def guarded(session_class: type[S]) -> type[S]:
    """Return a subclass of a session class, of the same name, whose sessions refuse to be shared.

    A call that starts while another thread or task is inside a call of the same session raises
    ``SharedSessionError`` and changes nothing. Re-entrant calls by the same owner, as an event
    listener makes them, are allowed. As the ``sync_session_class`` of an ``AsyncSession``, the
    class guards that one. Thread-safe.

    Args:
        session_class: the class of the user's sessions.
    """
    made = _MADE.get(session_class)
    if made is None:
        bases = (GuardedSession,) if session_class is Session else (session_class, GuardedSession)
        looks = {name: getattr(session_class, name) for name in _LOOKS}
        made = types.new_class(session_class.__name__, bases, {}, lambda body: body.update(looks))
        _MADE[session_class] = made  # of two threads at once, each gets a class of its own
    return cast("type[S]", made)


_LOOKS: Final = ("__module__", "__qualname__", "__doc__")
# A class goes with the last who uses it: users make session classes, as every sessionmaker does.
_MADE: Final[WeakValueDictionary[type[Session], type[Session]]] = WeakValueDictionary()


class GuardedSession(Session):
    """A session that one thread or task is inside at a time.

    What it adds to ``Session`` has names that clash with no user's.
    """

    sessionfactory_visit: tuple[Owner | int, str]
    """Who is inside, and by which call; absent where no call is inside."""
    sessionfactory_scope: int | None = None
    """The thread or task, by number, that entered the session's scope and alone has used it since;
    0 if another one has used it."""
    sessionfactory_due: str | None = None
    """What a scope that ended while a call was inside has still to do: roll back, or close."""

    def sessionfactory_enter(self, call: str) -> bool:
        """Enter the session; return whether this call has to leave it again.

        Raises:
            SharedSessionError: a call of another thread or task is inside.
            ClosedError: the session is closed.
        """
        # A thread's number costs least, and is its own for as long as it is inside.
        number = get_ident()
        me: Owner | int = number
        loop = _get_running_loop()
        task = None if loop is None else asyncio.current_task(loop)
        if task is not None:
            me = getattr(task, "sessionfactory_caller", task)
            number = id(me)
        visit = (me, call)
        inside = self.__dict__.setdefault(_VISIT, visit)  # atomic: of two, one gets in
        if inside is visit:
            if self.sessionfactory_scope is not None and self.sessionfactory_scope != number:
                self.sessionfactory_scope = 0
            return True
        if inside[0] == me:
            return False
        if inside is not _CLOSED:
            raise SharedSessionError(busy(call, inside))
        if call in _ALLOWED_WHEN_CLOSED:
            return False
        raise ClosedError(closed(self, call))

    def sessionfactory_enter_scope(self) -> None:
        """Note that the running thread or task enters a scope of the session."""
        loop = _get_running_loop()
        task = None if loop is None else asyncio.current_task(loop)
        self.sessionfactory_scope = (
            get_ident() if task is None else id(getattr(task, "sessionfactory_caller", task))
        )

    def __enter__(self) -> Self:
        """Enter the scope at whose end the session is closed."""
        self.sessionfactory_enter_scope()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the session; an error of the block is not replaced by one of the close."""
        try:
            self.close()
        except SharedSessionError:
            if kind is None:
                raise

    def begin(self, nested: bool = False) -> SessionTransaction:  # noqa: FBT001, FBT002 - SQLAlchemy's
        """Begin a transaction, or a savepoint."""
        if not nested and not self.in_transaction():
            if self.__dict__.get(_VISIT) is _CLOSED:
                raise ClosedError(closed(self, "begin"))
            # As SQLAlchemy would, but of our class. No other call is disturbed: one that is inside,
            # and has no transaction, has sent nothing yet.
            return GuardedTransaction(self, SessionTransactionOrigin.BEGIN)
        transaction = _run(self, "begin", Session.begin, self, nested)
        if type(transaction) is SessionTransaction:  # and no class that a listener gave it
            transaction.__class__ = GuardedTransaction
        return transaction

    def close(self) -> None:
        """Close the session."""
        if sqlalchemy_private.close_blank(self):
            pass
        elif self.in_transaction():
            try:
                _run(self, "close", Session.close, self)
            except SharedSessionError:
                _put_off(self, "close")
                raise
        else:  # no other call is disturbed here either
            Session.close(self)
        _mark_closed(self)


class GuardedTransaction(SessionTransaction):
    """What ``begin`` of a guarded session returns: its ends are calls of the session.

    ``close`` is none: it only gives back what ``commit`` or ``rollback`` has finished.
    """

    __slots__ = ()

    def __enter__(self) -> Self:
        """Enter the scope at whose end the transaction is committed or rolled back."""
        session: GuardedSession = self.session  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]  # its begin() made this
        outer = self.__dict__[_OUTER] = session.sessionfactory_scope
        if outer is None:
            session.sessionfactory_enter_scope()
        return super().__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Commit, or roll back; an error of the block is not replaced by one of the rollback."""
        session: GuardedSession = self.session  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]  # its begin() made this
        try:
            super().__exit__(kind, error, traceback)
        except (SharedSessionError, IllegalStateChangeError):  # the other call may be connecting
            if kind is None:
                raise
            _put_off(session, "rollback")
        finally:
            if self.__dict__.get(_OUTER) is None:
                session.sessionfactory_scope = None

    def commit(self, _to_root: bool = False) -> None:  # noqa: FBT001, FBT002 - SQLAlchemy's
        """Flush and commit."""
        # Written out, and without super(): every transaction goes through here.
        session: GuardedSession = self.session  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]  # its begin() made this
        if not session.sessionfactory_enter("commit"):
            SessionTransaction.commit(self, _to_root)
            return
        try:
            SessionTransaction.commit(self, _to_root)
        except BaseException as error:
            if not self.nested:
                commit_stage.note_stage(error, self)
            raise
        finally:
            del session.sessionfactory_visit
            if session.sessionfactory_due is not None:
                _make_up(session)

    def rollback(self, _capture_exception: bool = False, _to_root: bool = False) -> None:  # noqa: FBT001, FBT002
        """Roll back."""
        session = cast("GuardedSession", self.session)
        _run(session, "rollback", super().rollback, _capture_exception, _to_root)


def _run(
    session: GuardedSession, call: str, method: Callable[P, T], *args: P.args, **kwargs: P.kwargs
) -> T:
    """Run a method inside a session."""
    if not session.sessionfactory_enter(call):
        return method(*args, **kwargs)
    try:
        return method(*args, **kwargs)
    finally:
        del session.sessionfactory_visit
        if session.sessionfactory_due is not None:
            _make_up(session)


def _put_off(session: GuardedSession, due: str) -> None:
    """Leave the end of a scope to the call that is inside the session."""
    if session.sessionfactory_due != "close":
        session.sessionfactory_due = due
    _make_up(session)  # the other call may have left before it could see that


def _make_up(session: GuardedSession) -> None:
    """End a scope that ended while a call was inside."""
    while session.sessionfactory_due is not None and _VISIT not in session.__dict__:
        try:
            session.sessionfactory_enter("close")
        except SharedSessionError:  # another call is inside, and makes up for it when it leaves
            return
        due = session.__dict__.pop(_DUE, None)
        try:
            if due == "close":
                Session.close(session)
            elif due == "rollback":
                Session.rollback(session)
        except Exception:  # noqa: BLE001 - it must not replace the outcome of the call that leaves
            _log.exception("The end of a session, put off while another call was inside, failed")
        finally:
            del session.sessionfactory_visit
        if due == "close":
            _mark_closed(session)


def _mark_closed(session: GuardedSession) -> None:
    """Refuse further calls of a session that does not open again."""
    session.sessionfactory_scope = None
    if sqlalchemy_private.is_closed_for_good(session):
        session.__dict__.setdefault(_VISIT, _CLOSED)


@event.listens_for(GuardedSession, "after_begin")
def _note_connection(
    session: Session, _transaction: SessionTransaction, connection: Connection
) -> None:
    """Pass the session to the ledger of the pool that its connection comes from."""
    note_session(connection, session)


def _guard(name: str) -> None:
    @wraps(getattr(Session, name))
    def call(self: GuardedSession, *args: object, **kwargs: object) -> object:
        method = getattr(Session, name)  # as it is now: a test may have patched it
        # Written out, as every statement goes through here.
        if not self.sessionfactory_enter(name):
            return method(self, *args, **kwargs)
        try:
            return method(self, *args, **kwargs)
        finally:
            del self.sessionfactory_visit
            if self.sessionfactory_due is not None:
                _make_up(self)

    setattr(GuardedSession, name, call)


for _call in [name for name in CALLS if hasattr(Session, name)]:  # some came with SQLAlchemy 2.1
    _guard(_call)
