"""An async engine's pool belongs to the event loop that filled it.

A connection of an asynchronous driver waits in the loop in which it was opened, and works in no
other. So a pool whose loop is gone is replaced, and one whose loop still runs refuses the other.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Self

from sessionfactory.errors import EventLoopError
from sessionfactory.pool.tracked import LedgerPool

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.pool import PoolProxiedConnection


class LoopBound(LedgerPool):
    """A pool that serves one event loop. Mixed into the pools of async engines."""

    replace: Callable[[LoopBound], LoopBound] | None = None
    """Puts a new pool in the place of one whose loop is gone, and returns it; ``None`` where the
    connections may move: a database in memory is its connection, and aiosqlite lets it.
    """
    loop: asyncio.AbstractEventLoop | None = None

    @property
    def loop_is_closed(self) -> bool:
        """Whether the loop is gone for good, and all that waits in it."""
        return self.loop is not None and self.loop.is_closed()

    def recreate(self) -> Self:
        """Return a new pool of the same settings, for the next event loop."""
        pool = super().recreate()
        pool.replace = self.replace
        return pool

    @property
    def is_reachable(self) -> bool:
        """Whether this thread may touch what waits in the loop, which runs here, or nowhere."""
        try:
            return self.loop is asyncio.get_running_loop()
        except RuntimeError:  # no loop runs here
            return self.loop is None or not self.loop.is_running()

    def check_out(self) -> PoolProxiedConnection:
        """Return a connection, from the pool of the running event loop.

        Raises:
            EventLoopError: another event loop uses this pool, and still runs.
        """
        if self.loop is asyncio.get_running_loop():
            return super().check_out()
        pool = self.of_this_loop()
        return super().check_out() if pool is self else pool.check_out()

    def of_this_loop(self) -> LoopBound:
        """Return this pool, or the one that replaces it in the running event loop.

        Raises:
            EventLoopError: another event loop uses this pool, and still runs.
        """
        loop, mine = asyncio.get_running_loop(), self.loop
        if mine is not None and mine is not loop and mine.is_running():
            raise EventLoopError(
                f"The session factory {self.ledger.name!r} is in use in another event loop, which"
                " still runs, and its connections work in that one only: make a factory for each"
                " loop, or do the work over there by asyncio.run_coroutine_threadsafe()"
            )
        if mine is None or mine is loop or self.replace is None:
            self.loop = loop
            return self
        return self.replace(self)
