"""An event loop that keeps time to some ten microseconds; `asyncio` rounds to milliseconds."""

from __future__ import annotations

import contextlib
import heapq
import select
import selectors
from itertools import count
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

READ = selectors.EVENT_READ
WRITE = selectors.EVENT_WRITE
_FIRST_LAG, _MOST_LAG, _STEP = 40e-6, 250e-6, 2e-6


class Loop:
    """Calls back when a socket is ready and when a moment has come."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self.lag = _FIRST_LAG
        """Seconds from when a sleep should end to when the work it was for is done; learned from
        each timer, and what the next one is begun too early by."""
        self.paused = False
        """While true, no timer fires; those that came due meanwhile fire afterwards, in order."""
        # To save power, Linux lets a sleep last 50 µs longer than asked, which is too much for us.
        # (open() because importing pathlib takes a tenth of our start.)
        with (
            contextlib.suppress(OSError),
            open("/proc/self/timerslack_ns", "w", encoding="ascii") as slack,  # noqa: PTH123
        ):
            slack.write("1")

    def watch(self, sock: socket.socket, events: int, callback: Callable[[int], None]) -> None:
        """Call `callback` with what `sock` is ready for, out of `events`; for 0, forget it."""
        if not events:
            self.forget(sock)
        elif sock in self._selector.get_map():
            self._selector.modify(sock, events, callback)
        else:
            self._selector.register(sock, events, callback)

    def forget(self, sock: socket.socket) -> None:
        """Stop watching this socket, if it is watched at all."""
        if sock in self._selector.get_map():
            self._selector.unregister(sock)

    def at(self, due: float, callback: Callable[[], None]) -> None:
        """Call `callback` at `due`, on the clock of `time.monotonic`; in order if due together."""
        heapq.heappush(self._timers, (due, next(self._order), callback))

    def turn(self) -> None:
        """Wait for the next thing to do, and do all that is to be done then."""
        ready, slept = self._wait()
        for key, events in ready:
            # What was done for another socket may have changed what this one is watched for.
            now = self._selector.get_map().get(key.fd)
            if now is not None and now.fileobj is key.fileobj and now.events & events:
                now.data(now.events & events)
        while not self.paused and self._timers and self._left() <= 0:
            due, _, callback = heapq.heappop(self._timers)
            callback()
            if slept:
                # Half of them end too late, half too soon: the lag comes to be their median.
                step = _STEP if monotonic() > due else -_STEP
                self.lag = min(max(0.0, self.lag + step), _MOST_LAG)
                slept = False

    def _wait(self) -> tuple[list[tuple[selectors.SelectorKey, int]], bool]:
        """Give the sockets that are ready, and whether it was a timer that ended the wait."""
        if self.paused or not self._timers:
            return self._selector.select(), False
        left = max(0.0, self._left())
        # A selector waits in whole milliseconds; select() waits in microseconds, and takes the
        # selector itself as the one descriptor to look at.
        slept = not select.select((self._selector,), (), (), left)[0] and left > 0
        return self._selector.select(0), slept

    def _left(self) -> float:
        return self._timers[0][0] - self.lag - monotonic()
