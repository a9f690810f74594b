"""What the pools of one engine share: the ledger, the liveness check, the event loop.

A connection of an asynchronous driver waits in the loop in which it was opened, and works in no
other. So a pool whose loop has ended is replaced, and a pool whose loop still runs refuses others.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from sessionfactory.clock import monotonic
from sessionfactory.drivers import sqlalchemy_private
from sessionfactory.errors import ClosedError, EventLoopError
from sessionfactory.pool import connection_settings, deadlocks
from sessionfactory.pool.liveness import RETURNED
from sessionfactory.pool_errors import ConnectTimeoutError, PoolExhaustedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection
    from sqlalchemy.orm import Session
    from sqlalchemy.pool import PoolProxiedConnection

    from sessionfactory.pool.ledger import Ledger
    from sessionfactory.pool.liveness import Liveness
    from sessionfactory.pool.pool_entry import PoolEntry
    from sessionfactory.pool.wait_queue import Waiter


class TrackedPool(Protocol):
    """What is needed of a pool that is tracked."""

    loop: asyncio.AbstractEventLoop | None
    is_async: bool

    def check_out(self) -> PoolProxiedConnection:
        """Return a connection that is checked out, and not tracked."""
        ...

    def acquire(self) -> PoolEntry:
        """Return an entry with a connection."""
        ...

    def release(self, entry: PoolEntry) -> None:
        """Take an entry back."""
        ...

    def replace_broken(self, entry: PoolEntry) -> None:
        """Replace a dead connection, and each older one when it is used."""
        ...

    def retire(self) -> None:
        """Close each connection when it is checked in."""
        ...


class LoopBinding:
    """Binds each pool of one engine to the event loop that uses it first.

    Args:
        name: the database's name in messages.
        replace: replaces a pool whose loop has ended, and returns the new one; ``None`` where
            connections may move: a database in memory is its connection, and aiosqlite allows it.
    """

    def __init__(self, name: str, replace: Callable[[TrackedPool], TrackedPool] | None) -> None:
        self._name = name
        self._replace = replace

    def pool_here(self, pool: TrackedPool) -> TrackedPool:
        """Return the pool, or the one that replaces it, for the running event loop.

        Raises:
            EventLoopError: another event loop uses this pool, and still runs.
        """
        loop, bound = asyncio.get_running_loop(), pool.loop
        if bound is loop:
            return pool
        if bound is not None and bound.is_running():
            raise EventLoopError(
                f"The session factory {self._name!r} is in use in another event loop, which still"
                " runs, and its connections work in that one only: make a factory for each loop,"
                " or do the work over there by asyncio.run_coroutine_threadsafe()"
            )
        if bound is None or self._replace is None:
            pool.loop = loop
            return pool
        return self.pool_here(self._replace(pool))  # which binds the new one


class Tracking:
    """Tracks the checkouts of an engine's pool, and of every pool that replaces it. Thread-safe.

    A pool calls it at each step, rather than SQLAlchemy's events: a listener that runs at every
    checkout and return costs more than what is done here.

    Args:
        ledger: records who has which connection.
        liveness: checks idle connections before they are given out; ``None`` for no check.
        loops: binds pools to event loops; ``None`` where any thread may use any connection.
    """

    def __init__(
        self, ledger: Ledger, liveness: Liveness | None = None, loops: LoopBinding | None = None
    ) -> None:
        self.ledger = ledger
        self.liveness = liveness
        self.loops = loops
        self._settings_may_remain = False

    def connect(self, pool: TrackedPool) -> PoolProxiedConnection:
        """Return a connection without the settings of a view; see ``connection_settings``."""
        while True:
            proxy = self._check_out(pool)
            if not self._settings_may_remain or not connection_settings.is_left_on(proxy.info):
                return proxy
            try:
                connection_settings.take_back(proxy.info, proxy.dbapi_connection)
            except BaseException as error:
                # Nobody may receive a connection in such a state.
                sqlalchemy_private.fail_checkout(proxy, error)
                if not isinstance(error, Exception):
                    raise
            else:
                return proxy

    def connect_with_settings(self, pool: TrackedPool) -> PoolProxiedConnection:
        """Return a connection with the settings that a view may have left on it."""
        self._settings_may_remain = True
        return self._check_out(pool)

    def _check_out(self, pool: TrackedPool) -> PoolProxiedConnection:
        if self.loops is not None:
            pool = self.loops.pool_here(pool)
        proxy = pool.check_out()
        entry = sqlalchemy_private.entry_of(proxy)
        ledger = self.ledger
        ledger.note_checkout(entry, proxy, is_awaited=pool.is_async)
        # After the entry in the ledger: either ``close`` sees it, or this sees the close.
        if ledger.closed:
            try:
                ledger.refuse_if_closed()
            except ClosedError as error:
                sqlalchemy_private.fail_checkout(proxy, error)
                raise
        return proxy

    def acquire(self, pool: TrackedPool) -> PoolEntry:
        """Return an entry whose connection lives."""
        if self.ledger.closed:
            self.ledger.refuse_if_closed()
        entry = pool.acquire()
        if self.liveness is not None:
            try:
                if not self.liveness.vouches_for(entry):
                    pool.replace_broken(entry)
            except BaseException:  # during a ping
                try:
                    entry.invalidate()
                finally:
                    pool.release(entry)
                raise
        return entry

    def note_return(self, entry: PoolEntry) -> None:
        """Note that an entry is no longer checked out."""
        self.ledger.note_return(entry)
        if self.liveness is not None:
            entry.info[RETURNED] = monotonic()

    def wait(self, waiter: Waiter[PoolEntry], deadline: float | None) -> None:
        """Wait for an entry.

        Raises:
            PoolDeadlockError: all connections are held by callers that wait.
        """
        caller = self.ledger.note_waiter(waiter)
        try:
            deadlocks.refuse(self.ledger, waiter, caller)
            waiter.wait(deadline)
        finally:
            self.ledger.remove_waiter(waiter)

    def exhausted(self, timeout: float | None) -> Exception:
        """Return the error for a caller that waited in vain."""
        self.ledger.refuse_if_closed()
        ledger = self.ledger
        holders = ledger.holders
        within = "" if timeout is None else f" within {timeout:g} s"
        more = "use a file: a database in memory has one connection" if ledger.in_memory else ""
        message = (
            f"No connection of the database {ledger.name!r} came free{within}:"
            f" all {ledger.limit} are in use. Close sessions sooner, or"
            f" {more or 'raise pool.size'}. In use by:"
        )
        return PoolExhaustedError("\n  - ".join([message, *map(str, holders)]), holders)

    def connect_timed_out(self, timeout: float | None) -> Exception:
        """Return the error for a caller for which no connection was opened in time."""
        self.ledger.refuse_if_closed()
        return ConnectTimeoutError(
            f"No connection to the database {self.ledger.name!r} could be opened within"
            f" {timeout:g} s. Is the server down, or the network? If they are only slow,"
            " raise pool.timeout"
        )


def note_session(connection: Connection, session: Session) -> None:
    """Note to which session a connection was given that was checked out just now."""
    tracking: Tracking | None = getattr(connection.engine.pool, "tracking", None)
    if tracking is not None:
        tracking.ledger.note_session(sqlalchemy_private.entry_of(connection.connection), session)
