"""The fair pool of an async engine, which belongs to the event loop that filled it.

A connection of an asynchronous driver waits in the loop in which it was opened, and works in no
other. So a pool whose loop has ended is replaced, and a pool whose loop still runs refuses others.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from sqlalchemy.pool import AsyncAdaptedQueuePool
from sqlalchemy.util.concurrency import greenlet_spawn

from sessionfactory._lazy import publish
from sessionfactory.drivers import connections
from sessionfactory.errors import EventLoopError
from sessionfactory.pool.fair import FairPool
from sessionfactory.pool.wait_queue import TaskWaiter
from sessionfactory.pool.waiting import Tasks, new_task

if TYPE_CHECKING:
    from collections.abc import Callable

    from sessionfactory.pool.pool_entry import PoolEntry


class AsyncFairPool(FairPool):
    """Async twin of ``FairPool``, for ``create_async_engine`` and one event loop.

    A task that is cancelled while it waits, also in the moment in which it receives a connection,
    leaves that to the next one.
    """

    _is_asyncio = True
    _waiter = TaskWaiter
    _waiting = Tasks()
    _dialect = AsyncAdaptedQueuePool._dialect  # noqa: SLF001 - a placeholder until there is an engine

    loop: asyncio.AbstractEventLoop | None = None
    """The event loop that uses it; see ``LoopBinding``."""

    def close_idle(self) -> None:
        """Close the idle connections, unless their loop runs in another thread."""
        if is_reachable(self):
            super().close_idle()

    def _close_entry(self, entry: PoolEntry) -> None:
        connections.close_from_outside(entry)

    @staticmethod
    def _start(call: Callable[[], None]) -> object:
        return new_task(greenlet_spawn(call), "sessionfactory-connect")


class LoopBinding:
    """Binds each pool of one engine to the event loop that uses it first.

    Args:
        name: the database's name in messages.
        replace: replaces a pool whose loop has ended, and returns the new one; ``None`` where
            connections may move: a database in memory is its connection, and aiosqlite allows it.
    """

    def __init__(self, name: str, replace: Callable[[AsyncFairPool], AsyncFairPool] | None) -> None:
        self._name = name
        self._replace = replace

    def pool_here(self, pool: AsyncFairPool) -> AsyncFairPool:
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
        return self._replace(pool)


def is_closed(pool: AsyncFairPool) -> bool:
    """Return whether the loop of a pool is closed, and all that waits in it is dead."""
    return pool.loop is not None and pool.loop.is_closed()


def is_reachable(pool: AsyncFairPool) -> bool:
    """Return whether this thread may use the pool's connections: its loop runs here, or nowhere."""
    try:
        return pool.loop is asyncio.get_running_loop()
    except RuntimeError:  # no loop runs here
        return pool.loop is None or not pool.loop.is_running()


publish(AsyncFairPool)
