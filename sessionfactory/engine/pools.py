"""The pool classes of a factory's engine: SQLAlchemy's, keeping our books."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, cast

from sqlalchemy.exc import TimeoutError as SqlAlchemyTimeoutError
from sqlalchemy.pool import NullPool, QueuePool
from sqlalchemy.util.queue import Full

from sessionfactory.engine.errors import PoolExhaustedError

if TYPE_CHECKING:
    from sqlalchemy.pool import ConnectionPoolEntry

    from sessionfactory.engine.ledger import Ledger


class _WakeUp:
    """Stands in the queue of a closed pool, for those who still wait there."""

    def close(self) -> None:
        """Do nothing: there is no connection."""


class LedgerQueuePool(QueuePool):
    """SQLAlchemy's ``QueuePool``, which says who holds its connections when it runs dry."""

    ledger: Ledger
    _disposed = False

    def _do_get(self) -> ConnectionPoolEntry:
        self.ledger.refuse_if_closed()
        caller = object()
        self.ledger.ask(caller)
        try:
            record = super()._do_get()
        except SqlAlchemyTimeoutError:
            self.ledger.refuse_if_closed()
            raise _exhausted(self.ledger, self.timeout()) from None
        finally:
            self.ledger.answer(caller)
        if isinstance(cast("object", record), _WakeUp):
            self.wake()  # the next one
            self.ledger.refuse_if_closed()
        return record

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        super()._do_return_conn(record)
        if self._disposed:  # it was out meanwhile; nobody takes it from here any more
            self.dispose()

    def dispose(self) -> None:
        """Close the idle connections now, and those that are out when they come back."""
        self._disposed = True
        super().dispose()
        if self.ledger.closed:
            self.wake()

    def wake(self) -> None:
        """Have everybody who waits for a connection look whether the factory was closed."""
        with suppress(Full):  # then there is a connection to take, and nobody waits
            self._pool.put(cast("ConnectionPoolEntry", _WakeUp()), block=False)

    def recreate(self) -> LedgerQueuePool:
        """Return a new pool of the same settings and the same books."""
        pool = cast("LedgerQueuePool", super().recreate())
        pool.ledger = self.ledger
        return pool


class LedgerNullPool(NullPool):
    """SQLAlchemy's ``NullPool``, a connection per checkout, which can be closed."""

    ledger: Ledger

    def _do_get(self) -> ConnectionPoolEntry:
        self.ledger.refuse_if_closed()
        return super()._do_get()

    def recreate(self) -> LedgerNullPool:
        """Return a new pool of the same settings and the same books."""
        pool = cast("LedgerNullPool", super().recreate())
        pool.ledger = self.ledger
        return pool


def _exhausted(ledger: Ledger, timeout: float) -> PoolExhaustedError:
    holders = ledger.holders
    more = "use a file: a database in memory has one connection" if ledger.in_memory else ""
    message = (
        f"No connection of the database {ledger.name!r} came free within {timeout:g} s:"
        f" all {ledger.limit} are in use. Close sessions sooner, or"
        f" {more or 'raise pool.size'}. In use by:"
    )
    return PoolExhaustedError("\n  - ".join([message, *map(str, holders)]), holders)
