"""The ledger of a database: which connections are open, who has them, and who waits for one.

There are no locks: each entry is one atomic operation on a dictionary. Garbage collection may
return a dropped connection, and so call into this module, at any allocation, under such a lock.

The ledger refers to tasks, sessions and connections weakly, so that garbage collection finds what
a failed task has dropped, and returns its connection.
"""

from __future__ import annotations

import contextlib
import logging
import weakref
from threading import current_thread
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

import attrs
from sqlalchemy import event

from sessionfactory.clock import monotonic
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

    from sessionfactory.pool.call_sites import CallSite

Caller = tuple["threading.Thread", "asyncio.Task[object] | None"]
"""A thread, and the task that runs in it, if one does."""

_log = logging.getLogger("sessionfactory")
_OPEN: Final = "sessionfactory_open"


@attrs.define(eq=False)
class _Open:
    """An open connection, as long as its pool entry refers to this."""

    connection: DBAPIConnection


@attrs.define(eq=False)
class Checkout:
    """A connection that is checked out, and its holder."""

    record: ConnectionPoolEntry
    proxy: weakref.ref[PoolProxiedConnection]
    since: float
    thread: threading.Thread
    task_name: str | None
    """The name of the task that checked it out, if one did."""
    task_reference: weakref.ref[asyncio.Task[object]] | None
    used: CallSite | None = None
    """Where it was checked out, which is where its session was first used."""
    session_reference: weakref.ref[Session] | None = None
    opened: CallSite | None = None
    """Where its session was opened."""

    @property
    def owner(self) -> str:
        """The thread or task, as messages name it."""
        return f"thread {self.thread.name}" if self.task_name is None else f"task {self.task_name}"

    @property
    def task(self) -> asyncio.Task[object] | None:
        """The task that checked it out, if one did, and if it is not garbage yet."""
        return None if self.task_reference is None else self.task_reference()

    @property
    def session(self) -> Session | None:
        """The session that has it, if one does, and if it is not garbage yet."""
        return None if self.session_reference is None else self.session_reference()

    @property
    def holder(self) -> Holder:
        """Its holder, as people read it."""
        return Holder(self._where(), self.owner, monotonic() - self.since)

    def _where(self) -> str:
        used = call_sites.describe(self.used) if self.used else "unknown"
        opened = call_sites.describe(self.opened) if self.opened else used
        return used if opened == used else f"{opened}, first used at {used}"


class Ledger:
    """Records the connections of one engine's pools. Thread-safe.

    Args:
        name: the database's name in messages.
        size: connections that stay open.
        limit: connections that may be open; ``None`` where nothing limits them.
        in_memory: whether the database is its connection, so that there can be no second one.

    Attributes:
        on_checkout: called at each checkout, if it is set.
    """

    def __init__(self, name: str, size: int, limit: int | None, *, in_memory: bool = False) -> None:
        self.name = name
        self.size = size
        self.limit = limit
        self.in_memory = in_memory
        self.closed = False
        self.on_checkout: Callable[[], object] | None = None
        self._open: dict[int, weakref.ref[_Open]] = {}
        self._checkouts: dict[ConnectionPoolEntry, Checkout] = {}
        self._waiters: dict[Any, Caller] = {}
        self._listeners: dict[object, Callable[[], object]] = {}
        self._detached: WeakKeyDictionary[PoolProxiedConnection, Checkout] = WeakKeyDictionary()

    def listen_to_closes(self, pool: Pool) -> None:
        """Listen to a pool, and to every pool that replaces it."""
        event.listen(pool, "close", self._note_close)
        event.listen(pool, "close_detached", self._note_close)
        event.listen(pool, "detach", self._note_close)

    def listen_to_connects(self, pool: Pool) -> None:
        """Record new connections; listen last, so that one whose set-up failed is not recorded."""
        event.listen(pool, "connect", self._note_connect)

    def refuse_if_closed(self) -> None:
        """Raise ``ClosedError`` once the factory is closed."""
        if self.closed:
            raise ClosedError(f"The session factory {self.name!r} is closed; it opens no sessions")

    @property
    def open(self) -> tuple[DBAPIConnection, ...]:
        """The connections that are open, checked out or not."""
        found = [reference() for reference in tuple(self._open.values())]
        return tuple(one.connection for one in found if one is not None)

    def note_waiter(self, waiter: object) -> Caller:
        """Record that a caller waits for a connection; return the caller."""
        caller = self._waiters[waiter] = current_thread(), current_task()
        return caller

    def remove_waiter(self, waiter: object) -> None:
        """Record that a caller waits no longer."""
        self._waiters.pop(waiter, None)

    @property
    def waiting(self) -> tuple[tuple[Any, Caller], ...]:
        """The waiters and their callers, in the order in which they came."""
        return tuple(self._waiters.copy().items())

    @property
    def saturated(self) -> bool:
        """Whether every connection that may be checked out is checked out."""
        return self.limit is not None and len(self._checkouts) >= self.limit

    @property
    def checkouts(self) -> tuple[Checkout, ...]:
        """The connections that are checked out, longest first."""
        found = self._checkouts.copy().values()
        return tuple(sorted(found, key=lambda checkout: checkout.since))

    @property
    def holders(self) -> tuple[Holder, ...]:
        """The holders of the connections that are checked out, longest first."""
        return tuple(checkout.holder for checkout in self.checkouts)

    def status(self) -> PoolStatus:
        """Return what the ledger records now."""
        holders = self.holders
        size = max(len(self.open), len(holders))
        return PoolStatus(
            limit=self.limit,
            size=size,
            in_use=len(holders),
            idle=size - len(holders),
            overflow=max(0, size - self.size),
            waiting=sum(waiter.waits for waiter in tuple(self._waiters)),
            holders=holders,
        )

    def has_checkout_of(self, owner: object) -> bool:
        """Return whether a thread or task checked out one of the connections that are out."""
        for checkout in tuple(self._checkouts.values()):  # no generator: every waiter calls this
            if checkout.thread is owner or checkout.task is owner:
                return True
        return False

    def still_out(self, checkouts: tuple[Checkout, ...]) -> tuple[Checkout, ...]:
        """Return those of ``checkouts`` that have not been returned."""
        return tuple(one for one in checkouts if self._checkouts.get(one.record) is one)

    def remove(self, checkout: Checkout) -> None:
        """Remove a checkout whose connection was closed by force."""
        self._checkouts.pop(checkout.record, None)

    def forget_idle(self) -> tuple[DBAPIConnection, ...]:
        """Remove the connections that are not checked out, and return them."""
        held = {id(record.dbapi_connection) for record in self._checkouts.copy()}
        idle = [one for one in self.open if id(one) not in held]
        for one in idle:
            self._open.pop(id(one), None)
        return tuple(idle)

    def start_anew(self) -> tuple[tuple[Checkout, ...], tuple[DBAPIConnection, ...]]:
        """Forget everything, in a forked child, where no other thread can be.

        Returns:
            the checkouts, detached ones included, and all connections that were open.
        """
        detached = dict(self._detached)
        opened = {
            id(connection): connection
            for connection in (*self.open, *(proxy.dbapi_connection for proxy in detached))
            if connection is not None
        }
        checkouts = (*self.checkouts, *detached.values())
        for record in (
            self._open, self._checkouts, self._waiters, self._listeners, self._detached
        ):  # fmt: skip
            record.clear()
        return checkouts, tuple(opened.values())

    @contextlib.contextmanager
    def on_return(self, listener: Callable[[], object]) -> Generator[None]:
        """Call ``listener`` at every return of a connection, once the factory is closed."""
        key = object()
        self._listeners[key] = listener
        try:
            yield
        finally:
            self._listeners.pop(key, None)  # a forked child may have forgotten it

    def _note_connect(self, connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:
        for key, reference in tuple(self._open.items()):
            if reference() is None:  # its entry was garbage: an exception interrupted a checkout
                self._open.pop(key, None)
        record.info[_OPEN] = opened = _Open(connection)
        self._open[id(connection)] = weakref.ref(opened)

    def _note_close(self, connection: DBAPIConnection, _record: object = None) -> None:
        self._open.pop(id(connection), None)

    def note_checkout(
        self, record: ConnectionPoolEntry, proxy: PoolProxiedConnection, *, is_awaited: bool
    ) -> None:
        """Record who has a connection from now on: this thread or task, at this call site.

        Args:
            record: the pool's entry.
            proxy: what the holder has.
            is_awaited: whether this runs in a greenlet of SQLAlchemy's.
        """
        frame = call_sites.caller_of_pool(is_awaited=is_awaited)
        thread, task = current_thread(), current_task()
        self._checkouts[record] = Checkout(
            record,
            weakref.ref(proxy),  # weak: a session that is dropped returns its connection
            monotonic(),
            thread,
            None if task is None else task.get_name(),
            None if task is None else weakref.ref(task),
            None if frame is None else (frame.f_code, frame.f_lasti),
        )
        if self.on_checkout is not None:
            self.on_checkout()

    def note_session(self, record: ConnectionPoolEntry | None, session: Session) -> None:
        """Record which session has a connection that was checked out just now."""
        checkout = None if record is None else self._checkouts.get(record)
        if checkout is not None:
            checkout.session_reference = weakref.ref(session)
            checkout.opened = call_sites.opening_of(session)

    def note_return(self, record: ConnectionPoolEntry) -> None:
        """Record that a connection was checked in, or detached by its holder."""
        checkout = self._checkouts.pop(record, None)
        if checkout is not None:
            proxy = checkout.proxy()
            if proxy is None:
                self._warn_of_dropped(checkout)
            elif record.dbapi_connection is None and id(proxy.dbapi_connection) in self._open:
                self._detached[proxy] = checkout  # nothing waits for it, but a fork concerns it
        if self.closed:
            for listener in tuple(self._listeners.values()):
                listener()

    def _warn_of_dropped(self, checkout: Checkout) -> None:
        """Warn of a connection that garbage collection returned."""
        _log.warning(
            "A %s of the database %r was dropped, and not closed: %s. Garbage collection found it;"
            " open it by `with`, or call close()",
            "connection" if checkout.session_reference is None else "session",
            self.name,
            checkout.holder,
        )
