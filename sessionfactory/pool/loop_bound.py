"""The fair pool of an async engine, which belongs to the event loop that filled it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from sqlalchemy.pool import AsyncAdaptedQueuePool

from sessionfactory._lazy import publish
from sessionfactory.drivers import connections, sqlalchemy_private
from sessionfactory.pool.fair import FairPool
from sessionfactory.pool.wait_queue import TaskWaiter
from sessionfactory.pool.waiting import Tasks

if TYPE_CHECKING:
    from sessionfactory.pool.pool_entry import PoolEntry
    from sessionfactory.pool.tracked import Tracking


class AsyncFairPool(FairPool):
    """Async twin of ``FairPool``, for ``create_async_engine`` and one event loop.

    A task that is cancelled while it waits, also in the moment in which it receives a connection,
    leaves that to the next one.
    """

    _is_asyncio = True
    is_async = True
    _waiter = TaskWaiter
    _waiting = Tasks()
    _dialect = AsyncAdaptedQueuePool._dialect  # noqa: SLF001 - a placeholder until there is an engine

    def track(self, tracking: Tracking | None) -> None:
        """Track the checkouts; without a binding, any event loop may connect first."""
        super().track(tracking)
        if tracking is not None and tracking.loops is None:
            sqlalchemy_private.connect_first_concurrently(self)

    def close_idle(self) -> None:
        """Close the idle connections, unless their loop runs in another thread."""
        if is_reachable(self):
            super().close_idle()

    def _close_entry(self, entry: PoolEntry) -> None:
        connections.close_from_outside(entry)


def is_reachable(pool: AsyncFairPool) -> bool:
    """Return whether this thread may use the pool's connections: its loop runs here, or nowhere."""
    try:
        return pool.loop is asyncio.get_running_loop()
    except RuntimeError:  # no loop runs here
        return pool.loop is None or not pool.loop.is_running()


publish(AsyncFairPool)
