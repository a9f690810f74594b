"""The end of an engine: connections that are out are waited for, then cancelled, then cut."""

from __future__ import annotations

import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Final, Never

from sessionfactory.engine import connections
from sessionfactory.engine.ledger import current_task
from sessionfactory.errors import ClosedError

if TYPE_CHECKING:
    from sessionfactory.engine.ledger import Hold, Ledger
    from sessionfactory.engine.waiting import Waiting
    from sessionfactory.errors import SessionFactoryError
    from sessionfactory.status import Holder

_GRACE: Final = 0.25
"""Seconds that a cancelled statement has to give its connection back before that is closed."""
_AGAIN: Final = 0.02
"""Seconds between two cancellations of the same statement."""


class CutConnection:
    """Stands where a connection was that was closed over its holder's head.

    To roll it back or to close it is what the holder has to do, and succeeds; all else raises.
    """

    error: type[SessionFactoryError] = ClosedError
    """What it raises."""

    def __init__(self, message: str) -> None:
        self._message = message

    @property
    def refusal(self) -> SessionFactoryError:
        """An error that says why there is no connection any more."""
        return self.error(self._message)

    closed = True
    """As drivers' connections say it; psycopg's cursors ask."""

    def rollback(self) -> None:
        """Do nothing: the transaction ended with its connection."""

    def close(self) -> None:
        """Do nothing: it is closed."""

    def terminate(self) -> None:
        """Do nothing: it is closed."""

    def commit(self) -> Never:
        """Raise an error: nothing was committed."""
        raise self.refusal

    def __getattr__(self, name: str) -> Never:
        if name.startswith("__"):
            raise AttributeError(name)
        raise self.refusal


def drain(ledger: Ledger, deadline: float, waiting: Waiting) -> tuple[Holder, ...]:
    """Wait until no connection is out; cut those that are late.

    Returns:
        the holders that were cut off.
    """
    # What this thread or task holds cannot come back while it waits here.
    cut = _cut(ledger, tuple(hold for hold in ledger.holds if _is_ours(hold)), 0.0, waiting)
    waiting.until(lambda: not ledger.holds, ledger, deadline)
    return cut + _cut(ledger, ledger.holds, _GRACE, waiting)


def _cut(
    ledger: Ledger, holds: tuple[Hold, ...], grace: float, waiting: Waiting
) -> tuple[Holder, ...]:
    holders = tuple(hold.holder for hold in holds)
    end = time.monotonic() + grace
    while time.monotonic() < end and ledger.still_out(holds):
        # Again and again: a statement that begins after a cancellation does not feel it.
        late = ledger.still_out(holds)
        waiting.side_by_side([partial(_cancel, hold) for hold in late], end - time.monotonic())
        again = time.monotonic() + _AGAIN
        waiting.until(lambda: not ledger.still_out(holds), ledger, again)
    late = ledger.still_out(holds)
    message = f"The session factory {ledger.name!r} was closed, and this connection with it"
    strike_out(ledger, message, late)
    waiting.side_by_side([partial(_close, hold) for hold in late], _GRACE)
    return holders


def strike_out(ledger: Ledger, message: str, holds: tuple[Hold, ...] | None = None) -> None:
    """Take connections (by default all) from those who have them; what they do with them raises."""
    for hold in ledger.holds if holds is None else holds:
        connections.put_in_place(hold.proxy(), CutConnection(message))
        ledger.strike(hold)


def _cancel(hold: Hold) -> None:
    connections.cancel(hold.record.dbapi_connection, _GRACE)


def _close(hold: Hold) -> None:
    _cancel(hold)
    hold.record.invalidate()


def _is_ours(hold: Hold) -> bool:
    task = current_task()
    return hold.task is task and (task is not None or hold.thread is threading.current_thread())
