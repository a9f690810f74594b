"""Connections that are checked out for long are logged, once each, while they are out."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from sqlalchemy import event

from sessionfactory.clock import monotonic

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Engine

    from sessionfactory.pool.ledger import Checkout, Ledger

_log = logging.getLogger("sessionfactory")


def warn_of_long_holds(engine: Engine, ledger: Ledger, after: float) -> Callable[[], None]:
    """Log a warning, with call site and owner, of each connection out for ``after`` seconds.

    While connections are checked out, a timer waits for the one that is due first; otherwise
    nothing runs. Thread-safe.

    Returns:
        what to call in a forked child, where the timer's thread does not exist.
    """
    watch = _Watch(ledger, after)
    ledger.on_checkout = watch.begin
    event.listen(engine, "engine_disposed", watch.end)
    return watch.start_anew


class _Watch:
    """Starts and ends the timer.

    It has no lock: a signal handler may close the factory during a checkout, and a log handler may
    use the database. One operation on a dictionary decides which of two threads starts a timer.
    """

    def __init__(self, ledger: Ledger, after: float) -> None:
        self._ledger = ledger
        self._after = after
        self.start_anew()

    def start_anew(self) -> None:
        """Watch nothing."""
        self._timers: dict[None, threading.Timer] = {}
        self._logged: set[Checkout] = set()

    def begin(self) -> None:
        """Watch, from a checkout on that is in the ledger."""
        if not self._timers:
            self._start(self._after)

    def end(self, *_: object) -> None:
        """Watch no longer, until the next checkout."""
        timer = self._timers.pop(None, None)
        if timer is not None:
            timer.cancel()

    def _start(self, seconds: float) -> None:
        timer = threading.Timer(seconds, self._look)
        timer.name, timer.daemon = "sessionfactory-holds", True
        if self._timers.setdefault(None, timer) is timer:
            try:
                timer.start()
            except RuntimeError:  # no thread can be started: nothing is logged
                self.end()
            except BaseException:
                self.end()
                raise

    def _look(self) -> None:
        self._timers.pop(None, None)  # first: a checkout that saw it is in the ledger
        checkouts = self._ledger.checkouts
        self._logged &= set(checkouts)
        due = monotonic() - self._after
        for checkout in checkouts:
            if checkout.since <= due and checkout not in self._logged:
                self._logged.add(checkout)
                _log.warning(
                    "A connection of the database %r is held for long: %s. Close the session"
                    " sooner, or raise pool.hold_warning",
                    self._ledger.name,
                    checkout.holder,
                )
        later = [checkout for checkout in checkouts if checkout not in self._logged]
        if later:
            self._start(max(0.001, min(checkout.since for checkout in later) - due))
