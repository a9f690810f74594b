"""A connection pool that serves its callers in the order in which they came."""

from __future__ import annotations

from functools import partial
from math import inf
from time import time
from typing import TYPE_CHECKING, Any, Self, cast

from sqlalchemy.exc import TimeoutError as SqlAlchemyTimeoutError
from sqlalchemy.pool import Pool

from sessionfactory._lazy import publish
from sessionfactory.clock import monotonic
from sessionfactory.pool.connector import Attempts, Connector
from sessionfactory.pool.pool_entry import Entries, PoolEntry
from sessionfactory.pool.wait_queue import ThreadWaiter, Waiter
from sessionfactory.pool.waiting import Threads, Waiting

if TYPE_CHECKING:
    import asyncio

    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection
    from sqlalchemy.pool.base import (
        _ConnectionRecord,
        _CreatorFnType,
        _CreatorWRecFnType,
    )
    from typing_extensions import Unpack

    from sessionfactory.drivers.sqlalchemy_private import PoolOptions
    from sessionfactory.pool.tracked import Tracking


class FairPool(Pool):
    """A pool that gives a returned connection to the caller that has waited longest.

    It has the settings, events, counters and log of ``sqlalchemy.pool.QueuePool``, which gives a
    connection to the thread that happens to run next: under load, some threads are served a
    thousand times while others time out.

    ``create_engine(url, poolclass=FairPool, pool_size=5, max_overflow=10, pool_timeout=30)``

    Other differences: idle connections are used last in, first out, because the one used last needs
    no ping and the server's caches know it. A connection is replaced up to a quarter earlier than
    ``recycle`` says, so that those that were opened together are not replaced together. After
    ``dispose()``, connections that are checked out are closed when they are checked in.

    Thread-safe and re-entrant: garbage collection may return a dropped connection, and a signal
    handler may check one out, in the middle of its work; see ``wait_queue``.

    Args:
        creator: opens a connection of the driver; given by ``create_engine``.
        pool_size: connections that stay open; 0 for all of them, and then there is no limit.
        max_overflow: connections that may be open beyond that, while they are checked out; -1 for
            any number.
        timeout: seconds to wait for a connection; ``None`` for no limit.
        use_lifo: whether the idle connection that was used last is used next, rather than the one
            that rested longest.
        recycle_jitter: the part of ``recycle`` by which a connection is replaced earlier at most.
        connect_in_time: whether ``timeout`` includes the opening of a connection, which then runs
            in another thread, as do listeners to ``do_connect`` and ``connect``. A connection that
            comes too late stays in the pool.
        reuse: whether connections stay open when they are checked in; ``False`` for one connection
            a checkout, as with SQLAlchemy's ``NullPool``.
        options: those of every ``Pool``.
    """

    _is_asyncio = False  # pyright: ignore[reportAssignmentType]  # as QueuePool declares it
    # So that ``echo_pool``, and the level of the logger "sqlalchemy.pool", apply to it.
    _sqla_logger_namespace = "sqlalchemy.pool.FairPool"
    _waiter: type[Waiter[Any]] = ThreadWaiter
    _waiting: Waiting = Threads()

    is_async: bool = False
    """Whether its connections are opened and used in greenlets of SQLAlchemy's."""
    tracking: Tracking | None = None
    """Tracks the checkouts of a factory's engine; ``None`` for an engine of the user's own."""
    loop: asyncio.AbstractEventLoop | None = None
    """The event loop to which its connections belong, if they do; see ``tracked.LoopBinding``."""

    def __init__(  # noqa: PLR0913, PLR0917 - QueuePool's, and create_engine looks for them
        self,
        creator: _CreatorFnType | _CreatorWRecFnType,
        pool_size: int = 5,
        max_overflow: int = 10,
        timeout: float | None = 30.0,
        use_lifo: bool = True,  # noqa: FBT001, FBT002 - QueuePool's
        recycle_jitter: float = 0.25,
        connect_in_time: bool = False,  # noqa: FBT001, FBT002 - as those before
        reuse: bool = True,  # noqa: FBT001, FBT002 - as those before
        **options: Unpack[PoolOptions],
    ) -> None:
        self._size = pool_size
        self._max_overflow = max_overflow
        self._timeout = timeout
        self._use_lifo = use_lifo
        self._recycle_jitter = recycle_jitter
        self._reuse = reuse
        limit = pool_size + max_overflow if pool_size > 0 and max_overflow >= 0 else None
        attempts: Attempts[PoolEntry] | None = None
        if connect_in_time:
            # As many again as there may be connections, for attempts whose callers gave up.
            most = None if limit is None else 2 * limit
            attempts = Attempts(most, self._waiting.start_connecting, self._waiter)
        self._connector = Connector(self, self._waiting, recycle_jitter, attempts)
        self._entries = Entries(
            limit=limit,
            size=pool_size,
            use_lifo=use_lifo,
            reuse=reuse,
            waiter=self._waiter,
            create=lambda permits: PoolEntry(self, permits, self._connector.connect),
        )
        super().__init__(creator, **options)

    def recreate(self) -> Self:
        """Return a new, empty pool of the same settings."""
        self.logger.info("Pool recreating")
        pool = self.__class__(
            self._creator,
            pool_size=self._size,
            max_overflow=self._max_overflow,
            timeout=self._timeout,
            use_lifo=self._use_lifo,
            recycle_jitter=self._recycle_jitter,
            connect_in_time=self._connector.attempts is not None,
            reuse=self._reuse,
            recycle=self._recycle,
            echo=self.echo,
            logging_name=self._orig_logging_name,
            reset_on_return=self._reset_on_return,
            dialect=self._dialect,
            pre_ping=self._pre_ping,
            _dispatch=self.dispatch,
        )
        pool.track(self.tracking)
        return pool

    def track(self, tracking: Tracking | None) -> None:
        """Track the checkouts."""
        self.tracking = tracking

    def connect(self) -> PoolProxiedConnection:
        """Return a connection that is checked out."""
        tracking = self.tracking
        return super().connect() if tracking is None else tracking.connect(self)

    def check_out(self) -> PoolProxiedConnection:
        """Return a connection that is checked out, and not tracked."""
        return super().connect()

    def dispose(self) -> None:
        """Close the idle connections now, and the others when they are checked in."""
        self.retire()
        while (entry := self._entries.next_idle()) is not None:
            self._entries.discard(entry)
        self._entries.queue.serve()  # there is room again, for callers that go on to use this pool
        self.logger.info("Pool disposed. %s", self.status())

    def retire(self) -> None:
        """Close each connection when it is checked in; do nothing to it now."""
        self._entries.retire()

    def turn_away(self) -> None:
        """Send all waiters away, now and later: each gets the error of a full pool.

        For a pool whose owner is closing it.
        """
        self._entries.queue.close()
        if self._connector.attempts is not None:
            self._connector.attempts.close()

    def close_idle(self) -> None:
        """Close the idle connections; the next callers open new ones."""
        while (entry := self._entries.next_idle()) is not None:
            self._close_entry(entry)
            self._entries.discard(entry)
        self._entries.queue.serve()

    def status(self) -> str:
        """Return the counters as a line of text."""
        return (
            f"Pool size: {self.size()}  Connections in pool: {self.checkedin()} "
            f"Current Overflow: {self.overflow()} Current Checked out "
            f"connections: {self.checkedout()}"
        )

    def size(self) -> int:
        """Return how many connections stay open."""
        return self._size

    def timeout(self) -> float | None:
        """Return the seconds to wait for a connection; ``None`` for no limit."""
        return self._timeout

    def checkedin(self) -> int:
        """Return how many connections are idle."""
        return len(self._entries.idle)

    def overflow(self) -> int:
        """Return how many connections there are beyond ``size()``; less than 0 if there is room."""
        return len(self._entries.permits) - self._size if self._size else 0

    def checkedout(self) -> int:
        """Return how many connections are checked out, or are being opened for a caller."""
        return len(self._entries.permits) - len(self._entries.idle)

    def taken(self) -> int:
        """Return how many are checked out, or are being opened, for a caller or late."""
        return self.checkedout() + len(self._connector.attempts or ())

    def waiting(self) -> int:
        """Return how many callers wait for a connection."""
        return len(self._entries.waiters)

    @property
    def recycle(self) -> float:
        """The seconds after which a connection is replaced; less than 0 for never."""
        return self._recycle

    def _do_get(self) -> ConnectionPoolEntry:
        tracking = self.tracking
        return self.acquire() if tracking is None else tracking.acquire(self)

    # A pool gets back its own entries, and no others.
    def _do_return_conn(self, record: PoolEntry) -> None:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        if self.tracking is not None:
            self.tracking.note_return(record)
        self._entries.release(record)

    def acquire(self) -> PoolEntry:
        """Return an entry with a connection, for a caller that has to release it."""
        now = monotonic()
        deadline = None if self._timeout is None else now + self._timeout
        entries = self._entries
        # No caller overtakes: what is released after this look is for those who wait by then.
        entry = None if entries.waiters else entries.next_idle()
        if entry is None:
            entry = entries.queue.acquire(partial(self._wait, deadline))
            if entry is None:
                raise self._exhausted()
        entry.deadline = deadline
        try:
            if entry.unused:
                entry.get_connection()
                entry.unused = False
            elif now > entry.due:
                entry.invalidate(soft=True)  # and SQLAlchemy replaces it
        except BaseException:
            self.release(entry)
            raise
        return entry

    def release(self, entry: PoolEntry) -> None:
        """Take an entry back, and give it to the caller that has waited longest."""
        self._entries.release(entry)

    def add_late(self, entry: PoolEntry) -> None:
        """Add an entry whose caller gave up while it was opened; close it if there is no room."""
        if entry.permits.take(entry):
            entry.unused = False
            self._return_conn(entry)
        else:
            entry.close()

    def replace_broken(self, entry: PoolEntry) -> None:
        """Replace a dead connection now, and each older one when it is used."""
        self.logger.info("%r is dead; connections opened before now are replaced", entry)
        entry.invalidate()
        if self._invalidate_time < cast("_ConnectionRecord", entry).starttime:
            self._invalidate_time = time()

    def close_opened(self, connection: DBAPIConnection) -> None:
        """Close a connection that no entry has yet."""
        self._close_connection(connection, terminate=True)

    def connect_timed_out(self) -> Exception:
        """Return the error for a caller for which no connection was opened in time."""
        if self.tracking is not None:
            return self.tracking.connect_timed_out(self._timeout)
        return SqlAlchemyTimeoutError(
            f"{type(self).__name__} could not open a connection in time; the server may be down,"
            " or the network"
        )

    def _should_wrap_creator(
        self, creator: _CreatorFnType | _CreatorWRecFnType
    ) -> _CreatorWRecFnType:
        # Every connection is opened by what this returns.
        return self._connector.wrap(super()._should_wrap_creator(creator))

    def _close_entry(self, entry: PoolEntry) -> None:
        """Close a connection in the way of this half; discarding does so for threads."""

    def _wait(self, deadline: float | None, waiter: Waiter[PoolEntry]) -> None:
        """Wait: no entry is free."""
        tracking = self.tracking
        if tracking is None:
            waiter.wait(deadline)
        else:
            tracking.wait(waiter, deadline)

    def _exhausted(self) -> Exception:
        if self.tracking is not None:
            return self.tracking.exhausted(self._timeout)
        timeout = inf if self._timeout is None else self._timeout
        return SqlAlchemyTimeoutError(
            f"{type(self).__name__} limit of size {self.size()} overflow {self.overflow()} reached,"
            f" connection timed out, timeout {timeout:0.2f}",
            code="3o7r",
        )


publish(FairPool)
