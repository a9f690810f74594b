"""The end of an engine: connections that are out are waited for, then cancelled, then cut."""

from __future__ import annotations

import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Final, Never

from sessionfactory.engine import drivers
from sessionfactory.engine.ledger import current_task
from sessionfactory.errors import ClosedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sessionfactory.engine.ledger import Hold, Ledger
    from sessionfactory.status import Holder

_GRACE: Final = 0.25
"""Seconds that a cancelled statement has to give its connection back before that is closed."""
_AGAIN: Final = 0.02
"""Seconds between two cancellations of the same statement."""


class CutConnection:
    """Stands where a connection was that was closed over its holder's head.

    To roll it back or to close it is what the holder has to do, and succeeds; all else raises.
    """

    def __init__(self, message: str) -> None:
        self._message = message

    closed = True
    """As drivers' connections say it; psycopg's cursors ask."""

    def rollback(self) -> None:
        """Do nothing: the transaction ended with its connection."""

    def close(self) -> None:
        """Do nothing: it is closed."""

    def commit(self) -> Never:
        """Raise ``ClosedError``: nothing was committed."""
        raise ClosedError(self._message)

    def __getattr__(self, name: str) -> Never:
        if name.startswith("__"):
            raise AttributeError(name)
        raise ClosedError(self._message)


def drain(ledger: Ledger, deadline: float) -> tuple[Holder, ...]:
    """Wait until no connection is out; cut those that are late.

    Returns:
        the holders that were cut off.
    """
    # What this thread or task holds cannot come back while it waits here.
    cut = _cut(ledger, tuple(hold for hold in ledger.holds if _is_ours(hold)), grace=0.0)
    ledger.wait_until(deadline)
    return cut + _cut(ledger, ledger.holds, grace=_GRACE)


def _cut(ledger: Ledger, holds: tuple[Hold, ...], grace: float) -> tuple[Holder, ...]:
    holders = tuple(hold.holder for hold in holds)
    end = time.monotonic() + grace
    while time.monotonic() < end and ledger.still_out(holds):
        # Again and again: a statement that begins after a cancellation does not feel it.
        late = ledger.still_out(holds)
        _side_by_side([partial(_cancel, hold) for hold in late], end - time.monotonic())
        ledger.wait_until(time.monotonic() + _AGAIN, holds)
    message = f"The session factory {ledger.name!r} was closed, and this connection with it"
    late = ledger.still_out(holds)
    for hold in late:
        drivers.put_in_place(hold.proxy(), CutConnection(message))
        ledger.strike(hold)
    _side_by_side([partial(_close, hold) for hold in late], _GRACE)
    return holders


def _cancel(hold: Hold) -> None:
    drivers.cancel(hold.record.dbapi_connection, _GRACE)


def _close(hold: Hold) -> None:
    _cancel(hold)
    hold.record.invalidate()


def _side_by_side(calls: list[Callable[[], None]], timeout: float) -> None:
    """Make calls that a silent network may hold for ever; leave those that are late."""
    threads = [
        threading.Thread(target=call, name="sessionfactory-close", daemon=True) for call in calls
    ]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + timeout
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))


def _is_ours(hold: Hold) -> bool:
    task = current_task()
    return hold.task is task and (task is not None or hold.thread is threading.current_thread())
