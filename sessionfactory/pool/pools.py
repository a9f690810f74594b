"""The pool classes of a factory's engine: ours and SQLAlchemy's, keeping our books."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy.pool import NullPool

from sessionfactory.drivers import connections
from sessionfactory.pool import deadlocks
from sessionfactory.pool.fair import AsyncFairPool, FairPool
from sessionfactory.pool.loop_bound import LoopBound
from sessionfactory.pool.tracked import LedgerPool
from sessionfactory.pool_errors import ConnectTimeoutError, PoolExhaustedError

if TYPE_CHECKING:
    from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

    from sessionfactory.pool.ledger import Ledger
    from sessionfactory.pool.pool_entry import FairRecord
    from sessionfactory.pool.wait_queue import Waiter


class _Counting(LedgerPool):
    """Mixed into SQLAlchemy's pools, which do not know how many of theirs are being opened."""

    def check_out(self) -> PoolProxiedConnection:
        """Return a connection, which counts as taken until it is in the books."""
        caller = object()
        self.ledger.opening[caller] = None
        try:
            return super().check_out()
        finally:
            self.ledger.opening.pop(caller, None)


class LedgerFairPool(LedgerPool, FairPool):
    """A ``FairPool`` that says who holds its connections when it runs dry."""

    def taken(self) -> int:
        """Return how many connections are out, or are being opened, by itself or for somebody."""
        return self.checkedout() + len(self._connector or ())

    def wake(self) -> None:
        """Have everybody who waits for a connection look whether the factory was closed."""
        self.turn_away()

    def close_idle(self) -> None:
        """Close the connections that nobody has; whoever asks for one opens it anew."""
        while (record := self._idle_one()) is not None:
            self._close_entry(record)
            self._discard(record)
        self._line.settle()

    def _close_entry(self, record: ConnectionPoolEntry) -> None:
        """Close a connection in this half's way; ``_discard`` does so in a pool for threads."""

    def _wait(self, deadline: float | None, waiter: Waiter[FairRecord]) -> None:
        who = self.ledger.ask(waiter)
        try:
            deadlocks.refuse(self.ledger, waiter, who)
            super()._wait(deadline, waiter)
        finally:
            self.ledger.answer(waiter)

    def _exhausted(self) -> Exception:
        self.ledger.refuse_if_closed()
        return _exhausted(self.ledger, self.timeout())

    def _too_late(self) -> Exception:
        self.ledger.refuse_if_closed()
        return ConnectTimeoutError(
            f"No connection to the database {self.ledger.name!r} could be opened within"
            f" {self.timeout():g} s. Is the server down, or the network? If they are only slow,"
            " raise pool.timeout"
        )


class AsyncLedgerFairPool(LoopBound, LedgerFairPool, AsyncFairPool):
    """Async twin of ``LedgerFairPool``, for one event loop."""

    def close_idle(self) -> None:
        """Close the connections that nobody has, unless their loop runs in another thread."""
        if self.is_reachable:
            super().close_idle()

    def _close_entry(self, record: ConnectionPoolEntry) -> None:
        connections.close_from_outside(record)


class LedgerNullPool(_Counting, NullPool):  # pyright: ignore[reportIncompatibleMethodOverride]  # recreate() says Self
    """SQLAlchemy's ``NullPool``, a connection per checkout, which can be closed."""


def _exhausted(ledger: Ledger, timeout: float | None) -> PoolExhaustedError:
    holders = ledger.holders
    within = "" if timeout is None else f" within {timeout:g} s"
    more = "use a file: a database in memory has one connection" if ledger.in_memory else ""
    message = (
        f"No connection of the database {ledger.name!r} came free{within}:"
        f" all {ledger.limit} are in use. Close sessions sooner, or"
        f" {more or 'raise pool.size'}. In use by:"
    )
    return PoolExhaustedError("\n  - ".join([message, *map(str, holders)]), holders)
