"""Connection pools that serve in the order of arrival: first come, first served."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any, Self, TypedDict

from sqlalchemy.exc import TimeoutError as SqlAlchemyTimeoutError
from sqlalchemy.pool import AsyncAdaptedQueuePool, Pool
from sqlalchemy.util.concurrency import greenlet_spawn

from sessionfactory._lazy import publish
from sessionfactory.pool.connector import Connector, TimelyPool
from sessionfactory.pool.pool_entry import FairRecord, Permits
from sessionfactory.pool.wait_queue import Line, TaskWaiter, ThreadWaiter, Waiter
from sessionfactory.pool.waiting import Tasks, Threads, Waiting

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Dialect
    from sqlalchemy.event.base import _DispatchCommon
    from sqlalchemy.event.registry import _ListenerFnType
    from sqlalchemy.log import _EchoFlagType
    from sqlalchemy.pool import ConnectionPoolEntry
    from sqlalchemy.pool.base import (
        _ConnDialect,
        _CreatorFnType,
        _CreatorWRecFnType,
        _ResetStyleArgType,
    )
    from typing_extensions import Unpack


class PoolOptions(TypedDict, total=False):
    """The keywords of every ``sqlalchemy.pool.Pool``, as SQLAlchemy documents them there."""

    recycle: int
    echo: _EchoFlagType
    logging_name: str | None
    reset_on_return: _ResetStyleArgType
    events: list[tuple[_ListenerFnType, str]] | None
    dialect: _ConnDialect | Dialect | None
    pre_ping: bool
    _dispatch: _DispatchCommon[Pool] | None


class FairPool(TimelyPool):
    """A pool that gives a returned connection to whoever has waited longest.

    What ``sqlalchemy.pool.QueuePool`` does, with the same settings, events, counters and log, but
    for this: there a connection goes to the thread that happens to run next, so that under load
    some threads are served a thousand times while others wait until their time is over.

    ``create_engine(url, poolclass=FairPool, pool_size=5, max_overflow=10, pool_timeout=30)``

    Other differences. Idle connections are used last in, first out: the one used last needs no
    ping, and the server's caches know it; those that a burst left over rest until they are due.
    A connection is replaced up to a quarter earlier than ``recycle`` says, so that those that were
    opened together are not replaced together. After ``dispose()``, connections that are out are
    closed when they come back.

    Thread-safe, and safe where it is entered again in the middle of its own work: by garbage
    collection that returns a dropped connection, or by a signal handler. See ``handoff``.

    Args:
        creator: opens a connection of the driver; given by ``create_engine``.
        pool_size: connections that stay open; 0 for all of them, and then there is no limit.
        max_overflow: connections that may be open beyond, while they are in use; -1 for any number.
        timeout: seconds to wait for a connection; ``None`` for as long as it takes.
        use_lifo: whether the idle connection used last is used next, or the one that rested
            longest.
        recycle_jitter: by how much of ``recycle`` a connection may be replaced earlier, at random.
        connect_in_time: whether ``timeout`` includes the time that it takes to open a connection.
            Then that happens in another thread, and so do the calls of listeners to ``do_connect``
            and ``connect``. A connection that comes too late stays in the pool.
        options: those of every ``Pool``.
    """

    _is_asyncio = False  # pyright: ignore[reportAssignmentType]  # as QueuePool says it
    # So that ``echo_pool``, and whoever sets the level of "sqlalchemy.pool", reaches it.
    _sqla_logger_namespace = "sqlalchemy.pool.FairPool"
    _waiter: type[Waiter[Any]] = ThreadWaiter
    _waiting: Waiting = Threads()

    def __init__(  # noqa: PLR0913, PLR0917 - QueuePool's, and create_engine looks for them
        self,
        creator: _CreatorFnType | _CreatorWRecFnType,
        pool_size: int = 5,
        max_overflow: int = 10,
        timeout: float | None = 30.0,
        use_lifo: bool = True,  # noqa: FBT001, FBT002 - QueuePool's
        recycle_jitter: float = 0.25,
        connect_in_time: bool = False,  # noqa: FBT001, FBT002 - as those before
        **options: Unpack[PoolOptions],
    ) -> None:
        self._size = pool_size
        self._max_overflow = max_overflow
        self._timeout = timeout
        self._use_lifo = use_lifo
        self._recycle_jitter = recycle_jitter
        # The next one to be used is taken from the right, or from the left if not ``use_lifo``.
        self._idle: deque[FairRecord] = deque()
        self._next_idle = self._idle.pop if use_lifo else self._idle.popleft
        self._line = Line(self._waiter, self._free, self._put_back)
        self._waiters = self._line.waiters
        self._limit = pool_size + max_overflow if pool_size > 0 and max_overflow >= 0 else None
        self._permits = self._new_permits()
        self._connector = self._new_connector() if connect_in_time else None
        super().__init__(creator, **options)

    def recreate(self) -> Self:
        """Return a new, empty pool of the same settings."""
        self.logger.info("Pool recreating")
        return self.__class__(
            self._creator,
            pool_size=self._size,
            max_overflow=self._max_overflow,
            timeout=self._timeout,
            use_lifo=self._use_lifo,
            recycle_jitter=self._recycle_jitter,
            connect_in_time=self._connector is not None,
            recycle=self._recycle,
            echo=self.echo,
            logging_name=self._orig_logging_name,
            reset_on_return=self._reset_on_return,
            dialect=self._dialect,
            pre_ping=self._pre_ping,
            _dispatch=self.dispatch,
        )

    def dispose(self) -> None:
        """Close the idle connections now, and those that are out when they come back."""
        self.retire()
        while (record := self._idle_one()) is not None:
            self._discard(record)
        self._line.settle()  # there is room again, for those who go on to use this pool
        self.logger.info("Pool disposed. %s", self.status())

    def retire(self) -> None:
        """Give all connections up: whatever comes back is closed. Does nothing to them now."""
        self._permits = self._new_permits()

    def turn_away(self) -> None:
        """Let nobody wait any more: who does, or would, is told at once that the pool is full.

        For a pool whose owner is closing it.
        """
        self._line.close()
        if self._connector is not None:
            self._connector.close()

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
        """Return the seconds to wait for a connection; ``None`` for as long as it takes."""
        return self._timeout

    def checkedin(self) -> int:
        """Return how many connections are idle."""
        return len(self._idle)

    def overflow(self) -> int:
        """Return how many connections there are beyond ``size()``; less than 0 if there is room."""
        return len(self._permits) - self._size if self._size else 0

    def checkedout(self) -> int:
        """Return how many connections are out, or are being opened."""
        return len(self._permits) - len(self._idle)

    def waiting(self) -> int:
        """Return how many callers wait for a connection."""
        return len(self._waiters)

    def _do_get(self) -> ConnectionPoolEntry:
        now = monotonic()
        deadline = None if self._timeout is None else now + self._timeout
        # Nobody overtakes: what comes back after this look is for those who wait by then.
        record = None if self._waiters else self._idle_one()
        if record is None:
            record = self._line.stand(partial(self._wait, deadline))
            if record is None:
                raise self._exhausted()
        record.deadline = deadline
        try:
            if record.unused:
                record.get_connection()
                record.unused = False
            elif now > record.due:
                record.invalidate(soft=True)  # and SQLAlchemy replaces it
        except BaseException:
            self._do_return_conn(record)
            raise
        return record

    # Its own records, and no others, come back to a pool.
    def _do_return_conn(self, record: FairRecord) -> None:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        self._put_back(record)
        if self._waiters:
            self._line.settle()
        if len(self._idle) > self._size > 0:
            try:
                surplus = self._idle.popleft()  # the one that rested longest, or has no connection
            except IndexError:  # they were taken this very moment
                return
            self._discard(surplus)

    def _put_back(self, record: FairRecord) -> None:
        if record.unused:  # and SQLAlchemy says nothing of it to anybody
            self._discard(record)
            return
        if record.dbapi_connection is None and self._use_lifo:
            self._idle.appendleft(record)  # rather one that is connected
        else:
            self._idle.append(record)
        # Only now look whose it is: if all are given up meanwhile, either that sees it here, or
        # this sees that.
        if record.permits is not self._permits:
            with suppress(ValueError):  # somebody has taken it, and will return it
                self._idle.remove(record)
                self._discard(record)

    def _discard(self, record: FairRecord) -> None:
        """Close what is not kept, and let somebody else open another one."""
        try:
            record.close()
        finally:
            record.permits.give_back(record)

    def _wait(self, deadline: float | None, waiter: Waiter[FairRecord]) -> None:
        """Wait: nothing is free. A subclass may note it, or raise instead."""
        waiter.wait(deadline)

    def _exhausted(self) -> Exception:
        """Return what a caller gets whose time is over."""
        timeout = inf if self._timeout is None else self._timeout
        return SqlAlchemyTimeoutError(
            f"{type(self).__name__} limit of size {self.size()} overflow {self.overflow()} reached,"
            f" connection timed out, timeout {timeout:0.2f}",
            code="3o7r",
        )

    def _free(self) -> FairRecord | None:
        """Return an idle connection, or the right to open one; ``None`` if the pool is full."""
        record = self._idle_one()
        if record is None and not self._permits.all_taken:
            fresh = FairRecord(self, self._permits, self._connect)
            if fresh.permits.take(fresh):
                return fresh
        return record

    def _idle_one(self) -> FairRecord | None:
        try:
            return self._next_idle() if self._idle else None
        except IndexError:  # it was taken this very moment
            return None

    def _new_permits(self) -> Permits:
        return Permits(self._limit, self._line.settle)

    def _new_connector(self) -> Connector[FairRecord]:
        # As many again as the pool may have, for those that nobody waits for any more.
        limit = None if self._limit is None else 2 * self._limit
        return Connector(limit, self._start, self._waiter)

    @staticmethod
    def _start(call: Callable[[], None]) -> object:
        """Make a call for which nobody can be made to wait; return what makes it."""
        run = copy_context().run  # a user's listener to ``do_connect`` may look for its trace
        thread = threading.Thread(
            target=run, args=(call,), name="sessionfactory-connect", daemon=True
        )
        thread.start()
        return thread


class AsyncFairPool(FairPool):
    """Async twin of ``FairPool``, for ``create_async_engine`` and one event loop.

    A task that is cancelled while it waits, also at the moment at which it is given a connection,
    leaves that to the next one.
    """

    _is_asyncio = True
    _waiter = TaskWaiter
    _waiting = Tasks()
    _dialect = AsyncAdaptedQueuePool._dialect  # noqa: SLF001 - the stand-in until there is an engine

    @staticmethod
    def _start(call: Callable[[], None]) -> object:
        return asyncio.create_task(greenlet_spawn(call), name="sessionfactory-connect")


publish(FairPool, AsyncFairPool)
