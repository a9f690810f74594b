"""The entries of a fair pool: the permits that limit them, and the store of those that are idle."""

from __future__ import annotations

import weakref
from collections import deque
from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING, Any, Final, cast

from sqlalchemy.pool.base import _ConnectionRecord

from sessionfactory.pool.wait_queue import WaitQueue

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import ConnectionPoolEntry, Pool

    from sessionfactory.pool.wait_queue import Waiter


class Permits:
    """As many permits as there may be connections; each open connection takes one. Thread-safe.

    A permit is a weak reference to the entry that has it. A signal handler may raise between any
    two instructions and lose an entry; its permit then comes back with the garbage.

    There is no lock, for the reasons that ``wait_queue`` gives.

    Args:
        limit: how many there are; ``None`` for any number.
        on_return: called after a permit came back.
    """

    def __init__(self, limit: int | None, on_return: Callable[[], None]) -> None:
        self._limit = limit
        self._taken: dict[weakref.ref[PoolEntry], None] = {}
        self._on_return = on_return

    def __len__(self) -> int:
        """Return how many permits are taken."""
        return len(self._taken)

    @property
    def all_taken(self) -> bool:
        """Whether no permit is left."""
        return self._limit is not None and len(self._taken) >= self._limit

    def take(self, entry: PoolEntry) -> bool:
        """Take a permit for an entry; return ``False`` if none is left."""
        permit = entry.permit = weakref.ref(entry, self._release)
        while True:
            # Take first, then count: of several threads that take the last permit at the same
            # time, the order in the dictionary decides.
            self._taken[permit] = None
            if self._limit is None or list(self._taken).index(permit) < self._limit:
                return True
            del self._taken[permit]
            if self.all_taken:  # else a permit may have been returned concurrently: look again
                return False

    def give_back(self, entry: PoolEntry) -> None:
        """Return an entry's permit; a second call has no effect."""
        if entry.permit is not None:
            self._release(entry.permit)

    def _release(self, permit: weakref.ref[PoolEntry]) -> None:
        if self._taken.pop(permit, self) is None:
            self._on_return()


class PoolEntry(_ConnectionRecord):
    """A place in a pool; its connection is opened, closed and replaced over time.

    SQLAlchemy's class is private, and has all that a pool needs for an entry that has no connection
    yet: ``Pool._create_connection`` connects at once, before a deadline can be set.
    ``tests/pool/test_pool_entry.py`` fails if the class changes.

    Attributes:
        permits: where its permit comes from, and goes back to.
        permit: that permit.
        unused: whether it never had a connection: it is the right to open one.
        deadline: when the checkout under way has to end, on the monotonic clock.
        due: when its connection is to be replaced by a fresh one, on the monotonic clock.
        on_opened: called with each connection as the driver opened it, before it is set up.
    """

    __slots__ = ("_connect", "_pool", "deadline", "due", "on_opened", "permit", "permits", "unused")

    def __init__(
        self, pool: Pool, permits: Permits, connect: Callable[[PoolEntry], None] | None = None
    ) -> None:
        super().__init__(pool, connect=False)
        self._pool = pool
        self.permits: Permits = permits
        self.permit: weakref.ref[PoolEntry] | None = None
        self.unused: bool = True
        self.deadline: float | None = None
        self.due: float = inf
        self.on_opened: Callable[[DBAPIConnection], None] | None = None
        self._connect = connect or PoolEntry.connect_in_place

    # SQLAlchemy's private name for the step that opens a connection and calls the listeners that
    # set it up, wherever one is missing: ``tests/pool/test_connector.py`` fails if it moves.
    def _ConnectionRecord__connect(self) -> None:  # noqa: N802
        self._connect(self)

    def connect_in_place(self) -> None:
        """Open a connection and set it up in this thread, however long it takes."""
        _CONNECT(self)

    def without_permit(self) -> PoolEntry:
        """Return an entry that has no permit, in which a connection is opened for this one."""
        entry = PoolEntry(self._pool, self.permits, self._connect)
        entry.deadline = self.deadline
        entry._notes.update(self._notes)
        return entry

    def take_over(self, other: PoolEntry) -> None:
        """Move the connection of another entry into this one."""
        mine, theirs = cast("_ConnectionRecord", self), cast("_ConnectionRecord", other)
        mine.dbapi_connection, theirs.dbapi_connection = theirs.dbapi_connection, None
        mine.starttime, mine.fresh = theirs.starttime, True
        self.due = other.due
        self.info.update(other.info)
        self._notes.update(other._notes)

    @property
    def _notes(self) -> dict[Any, Any]:
        return cast("dict[Any, Any]", self.record_info)  # which no entry is without


_CONNECT: Final[Callable[[_ConnectionRecord], None]] = vars(_ConnectionRecord)[
    "_ConnectionRecord__connect"
]


class Entries:
    """The entries of one pool: those that are idle, the queue for them, and the permits.

    Thread-safe and re-entrant, as its parts are.

    Args:
        limit: how many entries there may be; ``None`` for any number.
        size: how many may be idle; 0 for any number.
        use_lifo: whether the idle entry that was used last is used next.
        reuse: whether entries are kept when they are released.
        waiter: makes a waiter for a caller.
        create: makes an entry with these permits.
    """

    def __init__(  # noqa: PLR0913 - what a pool has been told
        self,
        *,
        limit: int | None,
        size: int,
        use_lifo: bool,
        reuse: bool,
        waiter: Callable[[], Waiter[PoolEntry]],
        create: Callable[[Permits], PoolEntry],
    ) -> None:
        self.limit = limit
        self._size = size
        self._use_lifo = use_lifo
        self._reuse = reuse
        self._create = create
        # The next entry to be used is taken from the right, or from the left if not ``use_lifo``.
        self.idle: deque[PoolEntry] = deque()
        self._next_idle = self.idle.pop if use_lifo else self.idle.popleft
        self.queue: WaitQueue[PoolEntry] = WaitQueue(waiter, self._take_free, self._put_back)
        self.waiters: deque[Waiter[PoolEntry]] = self.queue.waiters
        self.permits: Permits = Permits(limit, self.queue.serve)

    def release(self, entry: PoolEntry) -> None:
        """Take an entry back, and give it to the caller that has waited longest."""
        self._put_back(entry)
        if self.waiters:
            self.queue.serve()
        if len(self.idle) > self._size > 0:
            try:
                surplus = self.idle.popleft()  # it rested longest, or has no connection
            except IndexError:  # all were taken concurrently
                return
            self.discard(surplus)

    def discard(self, entry: PoolEntry) -> None:
        """Close an entry, and let another one be opened."""
        try:
            entry.close()
        finally:
            entry.permits.give_back(entry)

    def next_idle(self) -> PoolEntry | None:
        """Return an idle entry, if there is one."""
        try:
            return self._next_idle() if self.idle else None
        except IndexError:  # it was taken concurrently
            return None

    def retire(self) -> None:
        """Close each entry when it is released; do nothing to it now."""
        self.permits = Permits(self.limit, self.queue.serve)

    def _put_back(self, entry: PoolEntry) -> None:
        if entry.unused or not self._reuse:
            self.discard(entry)
            return
        if entry.dbapi_connection is None and self._use_lifo:
            self.idle.appendleft(entry)  # entries that have a connection are used first
        else:
            self.idle.append(entry)
        # Only now look at its permits: if the pool is retired concurrently, either ``dispose`` sees
        # the entry here, or this sees the new permits.
        if entry.permits is not self.permits:
            with suppress(ValueError):  # it was taken concurrently, and will be released
                self.idle.remove(entry)
                self.discard(entry)

    def _take_free(self) -> PoolEntry | None:
        """Return an idle entry, or a new one; ``None`` if the pool is full."""
        entry = self.next_idle()
        if entry is None and not self.permits.all_taken:
            fresh = self._create(self.permits)
            if fresh.permits.take(fresh):
                return fresh
        return entry


def deadline_of(entry: ConnectionPoolEntry) -> float | None:
    """Return when the checkout under way has to end, on the monotonic clock.

    For listeners to ``do_connect``, ``connect`` and ``checkout``, which are given the entry.

    Returns:
        ``None`` if nothing limits it: the pool has no timeout, or is not a fair one.
    """
    return entry.deadline if isinstance(entry, PoolEntry) else None
