"""Connections that are held for long are told of in the log, once each, while they are held."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from sqlalchemy import event

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Engine

    from sessionfactory.pool.ledger import Hold, Ledger

_log = logging.getLogger("sessionfactory")


def warn_of_long_holds(engine: Engine, ledger: Ledger, after: float) -> Callable[[], None]:
    """Log a warning, with the place and the owner, of each connection held for ``after`` seconds.

    While connections are out, a timer waits for the one that will be due first; otherwise nothing
    runs. Thread-safe.

    Returns:
        what to call in a forked child, where the timer's thread does not exist.
    """
    watch = _Watch(ledger, after)
    ledger.on_hold = watch.begin
    event.listen(engine, "engine_disposed", watch.end)
    return watch.start_anew


class _Watch:
    def __init__(self, ledger: Ledger, after: float) -> None:
        self._ledger = ledger
        self._after = after
        self.start_anew()

    def start_anew(self) -> None:
        """Watch nothing yet."""
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None
        self._told: set[Hold] = set()

    def begin(self) -> None:
        """Watch, from a checkout on, which is in the books by now."""
        if self._timer is None:
            with self._lock:
                if self._timer is None:  # pragma: no branch - of two at once, one does it
                    self._timer = self._wait(self._after)

    def end(self, *_: object) -> None:
        """Watch no longer, until the next checkout."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    def _wait(self, seconds: float) -> threading.Timer:
        timer = threading.Timer(seconds, self._look)
        timer.name, timer.daemon = "sessionfactory-holds", True
        timer.start()
        return timer

    def _look(self) -> None:
        with self._lock:
            self._timer = None  # first: whoever still saw it is among the holds
            holds = self._ledger.holds
            self._told &= set(holds)
            due = time.monotonic() - self._after
            for hold in holds:
                if hold.since <= due and hold not in self._told:
                    self._told.add(hold)
                    _log.warning(
                        "A connection of the database %r is held for long: %s. Close the session"
                        " sooner, or raise pool.hold_warning",
                        self._ledger.name,
                        hold.holder,
                    )
            waited_for = [hold.since - due for hold in holds if hold not in self._told]
            if waited_for:
                self._timer = self._wait(max(0.001, min(waited_for)))
