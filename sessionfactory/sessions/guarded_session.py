"""Sessions that one thread or task uses at a time; a second one is refused, and told who is inside.

SQLAlchemy's own rule is "not concurrently", and it notices a breach late, or never. No event marks
the end of a call, so a subclass wraps the calls. It stands between the user's class and
``Session``: what the user overrides comes first, and what he calls by ``super()`` passes here too.
"""

from __future__ import annotations

import asyncio
import threading
import types
from asyncio import _get_running_loop
from functools import wraps
from threading import get_ident
from typing import TYPE_CHECKING, Final, ParamSpec, TypeVar, cast
from weakref import WeakValueDictionary

from sqlalchemy.orm import Session, SessionTransaction, SessionTransactionOrigin

from sessionfactory.errors import SharedSessionError
from sessionfactory.pool.owners import actor, kind_of, name_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from sessionfactory.pool.owners import Actor

S = TypeVar("S", bound=Session)
P = ParamSpec("P")
T = TypeVar("T")

# What is added to a session has names that clash with nobody's.
_VISIT: Final = "sessionfactory_visit"

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


def refuse_class(session_class: object, kind: type[object]) -> None:
    """Refuse a class of sessions that is none; types do so, but for the untyped caller.

    Raises:
        TypeError: it is no subclass of ``kind``, which is ``Session`` or ``AsyncSession``.
    """
    if not (isinstance(session_class, type) and issubclass(session_class, kind)):
        given = session_class if isinstance(session_class, type) else type(session_class)
        raise TypeError(f"session_class is a subclass of {kind.__name__}, not {given.__name__}")


def guarded(session_class: type[S]) -> type[S]:
    """Return a subclass of a session class, of the same name, whose sessions refuse to be shared.

    A call that starts while another thread or task is inside a call of the same session raises
    ``SharedSessionError`` and changes nothing. What somebody calls while he is inside, as an event
    listener does, is part of his visit. As the ``sync_session_class`` of an ``AsyncSession``, the
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

    What it adds to ``Session`` has names that clash with nobody's.
    """

    sessionfactory_visit: tuple[Actor | int, str]
    """Who is inside, and by which call; absent where nobody is."""

    def sessionfactory_enter(self, call: str) -> bool:
        """Say whether a visit begins, which this call has to end; refuse it to another."""
        # A thread's number costs least, and is its own for as long as it is inside.
        loop = _get_running_loop()
        me = get_ident() if loop is None else asyncio.current_task(loop) or get_ident()
        visit = (me, call)
        inside = self.__dict__.setdefault(_VISIT, visit)  # atomic: of two, one gets in
        if inside is visit:
            return True
        if inside[0] == me:
            return False
        raise SharedSessionError(_busy(call, inside))

    def begin(self, nested: bool = False) -> SessionTransaction:  # noqa: FBT001, FBT002 - SQLAlchemy's
        """Begin a transaction, or a savepoint."""
        if not nested and not self.in_transaction():
            # As SQLAlchemy would, but of our class. Nobody is disturbed: a call that is inside, and
            # has no transaction, has sent nothing yet.
            return GuardedTransaction(self, SessionTransactionOrigin.BEGIN)
        transaction = _run(self, "begin", Session.begin, self, nested)
        if type(transaction) is SessionTransaction:  # and no class that a listener gave it
            transaction.__class__ = GuardedTransaction
        return transaction

    def close(self) -> None:
        """Close the session."""
        if self.in_transaction():
            _run(self, "close", Session.close, self)
        else:  # nor is anybody disturbed here
            Session.close(self)


class GuardedTransaction(SessionTransaction):
    """What ``begin`` of a guarded session returns: its ends are calls of the session.

    ``close`` is none: it only gives back what ``commit`` or ``rollback`` has done with.
    """

    __slots__ = ()

    def commit(self, _to_root: bool = False) -> None:  # noqa: FBT001, FBT002 - SQLAlchemy's
        """Flush and commit."""
        # Written out, and without super(): every transaction goes through here.
        session: GuardedSession = self.session  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]  # its begin() made this
        if not session.sessionfactory_enter("commit"):
            SessionTransaction.commit(self, _to_root)
            return
        try:
            SessionTransaction.commit(self, _to_root)
        finally:
            del session.sessionfactory_visit

    def rollback(self, _capture_exception: bool = False, _to_root: bool = False) -> None:  # noqa: FBT001, FBT002
        """Roll back."""
        session = cast("GuardedSession", self.session)
        _run(session, "rollback", super().rollback, _capture_exception, _to_root)


def _run(
    session: GuardedSession, call: str, method: Callable[P, T], *args: P.args, **kwargs: P.kwargs
) -> T:
    """Run a method as a visit of a session, or as a part of one."""
    if not session.sessionfactory_enter(call):
        return method(*args, **kwargs)
    try:
        return method(*args, **kwargs)
    finally:
        del session.sessionfactory_visit


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

    setattr(GuardedSession, name, call)


for _call in [name for name in CALLS if hasattr(Session, name)]:  # some came with SQLAlchemy 2.1
    _guard(_call)


def _busy(call: str, inside: tuple[Actor | int, str]) -> str:
    me = actor()
    return (
        f"The {name_of(me)} calls {call}() of a session while the {_name(inside[0])} is inside its"
        f" {inside[1]}(). {_cure(me)}."
    )


def _cure(me: Actor) -> str:
    kind = kind_of(me)
    return f"A session is for one {kind} at a time: inject the factory, open one session per {kind}"


def _name(who: Actor | int) -> str:
    if not isinstance(who, int):
        return name_of(who)
    thread = next((thread for thread in threading.enumerate() if thread.ident == who), None)
    return f"thread {who}" if thread is None else name_of(thread)
