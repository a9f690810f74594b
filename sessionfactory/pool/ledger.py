"""The books of a pool: which connections are open, who has them, who waits, and whether it closed.

Without locks: each entry is one atomic operation on a dictionary. A lock would not do, because
garbage collection may return a dropped connection, and so come back in here, at any allocation.
"""

from __future__ import annotations

import contextlib
import logging
import weakref
from threading import current_thread
from time import monotonic
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import attrs
from sqlalchemy import event

from sessionfactory.errors import ClosedError
from sessionfactory.pool import call_sites
from sessionfactory.pool.owners import current_task
from sessionfactory.status import Holder, PoolStatus

if TYPE_CHECKING:
    import asyncio
    import threading
    from collections.abc import Callable, Generator

    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.orm import Session
    from sqlalchemy.pool import ConnectionPoolEntry, Pool, PoolProxiedConnection

    from sessionfactory.pool.call_sites import Place

Who = tuple["threading.Thread", "asyncio.Task[object] | None"]
"""A thread, and the task that runs in it, if one does."""

_log = logging.getLogger("sessionfactory")


@attrs.define(eq=False)
class Hold:
    """A connection that is out, and who has it."""

    record: ConnectionPoolEntry
    proxy: weakref.ref[PoolProxiedConnection]
    since: float
    thread: threading.Thread
    task: asyncio.Task[object] | None
    used: Place | None = None
    """Where it was taken, which is where its session was first used."""
    session: weakref.ref[Session] | None = None
    opened: Place | None = None
    """Where its session was opened."""

    @property
    def holder(self) -> Holder:
        """This hold as people read it."""
        owner = f"task {self.task.get_name()}" if self.task else f"thread {self.thread.name}"
        return Holder(self._where(), owner, monotonic() - self.since)

    def _where(self) -> str:
        used = call_sites.describe(self.used) if self.used else "unknown"
        opened = call_sites.describe(self.opened) if self.opened else used
        return used if opened == used else f"{opened}, first used at {used}"


class Ledger:
    """Keeps the books of one engine's pools. Thread-safe.

    Args:
        name: what messages call the database.
        size: connections that stay open.
        limit: connections that may be open; ``None`` where nothing limits them.
        in_memory: whether the database is its connection, so that there can be no second one.

    Attributes:
        opening: who is being given a connection by a pool that does not count them itself.
        on_hold: called at each checkout, if it is set.
    """

    def __init__(self, name: str, size: int, limit: int | None, *, in_memory: bool = False) -> None:
        self.name = name
        self.size = size
        self.limit = limit
        self.in_memory = in_memory
        self.closed = False
        self.opening: dict[object, None] = {}
        self.on_hold: Callable[[], object] | None = None
        self._open: dict[int, DBAPIConnection] = {}
        self._holds: dict[ConnectionPoolEntry, Hold] = {}
        self._waiting: dict[Any, Who] = {}
        self._told: dict[object, Callable[[], object]] = {}
        self._detached: WeakKeyDictionary[PoolProxiedConnection, Hold] = WeakKeyDictionary()

    def keep(self, pool: Pool) -> None:
        """Listen to a pool, and to every pool that replaces it."""
        event.listen(pool, "close", self._note_close)
        event.listen(pool, "close_detached", self._note_close)
        event.listen(pool, "detach", self._note_close)

    def keep_opened(self, pool: Pool) -> None:
        """Count new connections; listen last, so that one whose set-up failed is not counted."""
        event.listen(pool, "connect", self._note_connect)

    def refuse_if_closed(self) -> None:
        """Raise ``ClosedError`` once the factory is closed."""
        if self.closed:
            raise ClosedError(f"The session factory {self.name!r} is closed; it opens no sessions")

    @property
    def open(self) -> tuple[DBAPIConnection, ...]:
        """The connections that are open, out or not."""
        return tuple(self._open.copy().values())

    def ask(self, caller: object) -> Who:
        """Note that a caller waits for a connection; return who that is."""
        who = self._waiting[caller] = current_thread(), current_task()
        return who

    def answer(self, caller: object) -> None:
        """Note that a caller waits no longer."""
        self._waiting.pop(caller, None)

    @property
    def waiting(self) -> tuple[tuple[Any, Who], ...]:
        """Who waits for a connection, in the order in which they came."""
        return tuple(self._waiting.copy().items())

    @property
    def saturated(self) -> bool:
        """Whether every connection that may be out is out."""
        return self.limit is not None and len(self._holds) >= self.limit

    @property
    def holds(self) -> tuple[Hold, ...]:
        """The connections that are out, longest first."""
        return tuple(sorted(self._holds.copy().values(), key=lambda hold: hold.since))

    @property
    def holders(self) -> tuple[Holder, ...]:
        """Who has the connections that are out, longest first."""
        return tuple(hold.holder for hold in self.holds)

    def status(self) -> PoolStatus:
        """Return what the books say now."""
        holders = self.holders
        size = max(len(self._open), len(holders))
        return PoolStatus(
            limit=self.limit,
            size=size,
            in_use=len(holders),
            idle=size - len(holders),
            overflow=max(0, size - self.size),
            waiting=len(self._waiting),
            holders=holders,
        )

    def has_held(self, owner: object) -> bool:
        """Say whether a thread or task took one of the connections that are out."""
        for hold in tuple(self._holds.values()):  # no generator: whoever waits comes through here
            if hold.task is owner or hold.thread is owner:
                return True
        return False

    def still_out(self, holds: tuple[Hold, ...]) -> tuple[Hold, ...]:
        """Return those of ``holds`` that are not back yet."""
        return tuple(hold for hold in holds if self._holds.get(hold.record) is hold)

    def strike(self, hold: Hold) -> None:
        """Take a hold out of the books whose connection was closed over the holder's head."""
        self._holds.pop(hold.record, None)

    def leave_idle(self) -> tuple[DBAPIConnection, ...]:
        """Take the connections that nobody has out of the books, and return them."""
        held = {id(record.dbapi_connection) for record in self._holds.copy()}
        left = {key: found for key, found in self._open.copy().items() if key not in held}
        for key in left:
            del self._open[key]
        return tuple(left.values())

    def start_anew(self) -> tuple[tuple[Hold, ...], tuple[DBAPIConnection, ...]]:
        """Forget everything, in a forked child, where no other thread can be.

        Returns:
            the connections that were out, detached ones included, and all that were open.
        """
        detached = dict(self._detached)
        opened = {
            id(connection): connection
            for connection in (
                *self._open.values(),
                *(proxy.dbapi_connection for proxy in detached),
            )
            if connection is not None
        }
        holds = (*self.holds, *detached.values())
        books = (self._open, self._holds, self._waiting, self._told, self._detached, self.opening)
        for book in books:
            book.clear()
        return holds, tuple(opened.values())

    @contextlib.contextmanager
    def telling(self, listener: Callable[[], object]) -> Generator[None]:
        """Call ``listener`` at every return of a connection, once the factory is closed."""
        key = object()
        self._told[key] = listener
        try:
            yield
        finally:
            del self._told[key]

    def _note_connect(self, connection: DBAPIConnection, _record: ConnectionPoolEntry) -> None:
        self._open[id(connection)] = connection

    def _note_close(self, connection: DBAPIConnection, _record: object = None) -> None:
        self._open.pop(id(connection), None)

    def note_checkout(
        self, record: ConnectionPoolEntry, proxy: PoolProxiedConnection, *, is_awaited: bool
    ) -> None:
        """Note who has a connection from now on: this thread, this task, this place.

        Args:
            record: the pool's entry.
            proxy: what its holder has.
            is_awaited: whether this runs in a greenlet of SQLAlchemy's.
        """
        frame, session = call_sites.caller(is_awaited=is_awaited)
        self._holds[record] = Hold(
            record,
            weakref.ref(proxy),  # weak: a session that is dropped gives its connection back
            monotonic(),
            current_thread(),
            current_task(),
            None if frame is None else (frame.f_code, frame.f_lasti),
            None if session is None else weakref.ref(session),
            None if session is None else call_sites.opening_of(session),
        )
        if self.on_hold is not None:
            self.on_hold()

    def note_return(self, record: ConnectionPoolEntry) -> None:
        """Note that nobody has a connection any more, or that it is its holder's own now."""
        hold = self._holds.pop(record, None)
        if hold is not None:
            proxy = hold.proxy()
            if proxy is None:
                self._tell_of_dropped(hold)
            elif record.dbapi_connection is None and id(proxy.dbapi_connection) in self._open:
                self._detached[proxy] = hold  # not ours to wait for, but a fork concerns it
        if self.closed:
            for listener in tuple(self._told.values()):
                listener()

    def _tell_of_dropped(self, hold: Hold) -> None:
        """Tell of a connection that garbage collection returned, because nobody else did."""
        _log.warning(
            "A %s of the database %r was dropped, and not closed: %s. Garbage collection found it;"
            " open it by `with`, or call close()",
            "connection" if hold.session is None else "session",
            self.name,
            hold.holder,
        )
