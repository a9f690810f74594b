"""The pool classes of a factory's engine: SQLAlchemy's, keeping our books."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from sqlalchemy.exc import TimeoutError as SqlAlchemyTimeoutError
from sqlalchemy.pool import NullPool, QueuePool

from sessionfactory.engine.errors import PoolExhaustedError

if TYPE_CHECKING:
    from sqlalchemy.pool import ConnectionPoolEntry

    from sessionfactory.engine.ledger import Ledger


class LedgerQueuePool(QueuePool):
    """SQLAlchemy's ``QueuePool``, which says who holds its connections when it runs dry."""

    ledger: Ledger

    def _do_get(self) -> ConnectionPoolEntry:
        self.ledger.refuse_if_closed()
        caller = object()
        self.ledger.ask(caller)
        try:
            return super()._do_get()
        except SqlAlchemyTimeoutError:
            raise _exhausted(self.ledger, self.timeout()) from None
        finally:
            self.ledger.answer(caller)

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
    message = (
        f"No connection of the database {ledger.name!r} came free within {timeout:g} s:"
        f" all {ledger.limit} are in use. Close sessions sooner, or raise pool.size. In use by:"
    )
    return PoolExhaustedError("\n  - ".join([message, *map(str, holders)]), holders)
