"""A line of those who wait, and handing something over to one who may give up at that moment.

Without locks, in the manner of the ledger: garbage collection may return a dropped connection, and
a signal handler may raise, between any two instructions, in the middle of what stands here. A lock
would be held at that moment, or be left held; one operation on a dictionary is done or not done.
"""

from __future__ import annotations

import asyncio
import threading
from abc import ABC, abstractmethod
from collections import deque
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Final, Generic, TypeVar, cast

from sqlalchemy.util.concurrency import await_only

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class _Nothing:
    """What somebody has who left, or was sent away."""


_LEFT: Final = _Nothing()


class Waiter(ABC, Generic[T]):
    """Somebody who waits for one thing. Thread-safe.

    Either he is given it, or he leaves without it: whichever comes first, and never both. So what
    was offered in vain can be given to the next one, and what was given to somebody who is no
    longer there is found by his own ``leave``.
    """

    __slots__ = ("_fate",)

    def __init__(self) -> None:
        # Empty while he waits. ``setdefault`` is the one step that decides, and it is atomic.
        self._fate: dict[None, object] = {}

    @property
    def waits(self) -> bool:
        """Whether it is still open how this ends."""
        return not self._fate

    def offer(self, thing: T) -> bool:
        """Give him what he waits for; ``False`` if he has left or was given another one."""
        if self._fate.setdefault(None, thing) is not thing:
            return False
        self._wake()
        return True

    def send_away(self) -> None:
        """Have him leave with nothing, if he still waits."""
        nothing = _Nothing()
        if self._fate.setdefault(None, nothing) is nothing:
            self._wake()

    def leave(self) -> T | None:
        """Wait no longer; return what was given meanwhile. Called again, it says the same."""
        fate = self._fate.setdefault(None, _LEFT)
        return None if isinstance(fate, _Nothing) else cast("T", fate)

    @abstractmethod
    def wait(self, deadline: float | None) -> None:
        """Wait until something is given, or until the deadline on the monotonic clock.

        Whatever interrupts the wait is raised; ``leave`` has to be called in every case.
        """

    @abstractmethod
    def _wake(self) -> None:
        """End the wait, from any thread, also before it has begun; called once at most."""


class ThreadWaiter(Waiter[T]):
    """A thread that waits."""

    __slots__ = ("_asleep",)

    def __init__(self) -> None:
        super().__init__()
        self._asleep: threading.Lock | None = None

    def wait(self, deadline: float | None) -> None:
        """Block the thread."""
        asleep = threading.Lock()
        asleep.acquire()
        self._asleep = asleep
        # Only now look again: who gives something before this line does not see that we sleep.
        if self.waits:
            asleep.acquire(timeout=_seconds_until(deadline))

    def _wake(self) -> None:
        asleep = self._asleep
        if asleep is not None:
            asleep.release()


class TaskWaiter(Waiter[T]):
    """An asyncio task that waits, in a greenlet of SQLAlchemy's."""

    __slots__ = ("_asleep", "_loop")

    def __init__(self) -> None:
        super().__init__()
        self._asleep: asyncio.Future[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def offer(self, thing: T) -> bool:
        """Give the task what it waits for; ``False``, too, if its event loop is closed."""
        if self._loop is not None and self._loop.is_closed():
            return False
        return super().offer(thing)

    def wait(self, deadline: float | None) -> None:
        """Await, so that the event loop goes on; the task may be cancelled meanwhile."""
        loop = self._loop = asyncio.get_running_loop()
        asleep = self._asleep = loop.create_future()
        if not self.waits:  # as above
            return
        if deadline is None:
            await_only(asleep)
            return
        alarm = loop.call_later(deadline - monotonic(), _finish, asleep)
        try:
            await_only(asleep)
        finally:
            alarm.cancel()

    def _wake(self) -> None:
        asleep, loop = self._asleep, self._loop
        if asleep is None or loop is None:
            return
        try:
            here = asyncio.get_running_loop() is loop
        except RuntimeError:  # garbage collection, in a thread without a loop
            here = False
        if here:
            _finish(asleep)
            return
        with suppress(RuntimeError):  # it was closed this very moment
            loop.call_soon_threadsafe(_finish, asleep)


class Line(Generic[T]):
    """Those who wait, served in the order in which they came. Thread-safe.

    Args:
        waiter: what stands in the line for a caller: a thread or a task.
        free: returns a thing that may be given away, if there is one.
        put_back: takes back what was given to nobody.
    """

    def __init__(
        self,
        waiter: Callable[[], Waiter[T]],
        free: Callable[[], T | None],
        put_back: Callable[[T], None],
    ) -> None:
        self.waiters: deque[Waiter[T]] = deque()
        self._waiter = waiter
        self._free = free
        self._put_back = put_back
        self._closed = False

    def stand(self, wait: Callable[[Waiter[T]], None]) -> T | None:
        """Stand in the line; return what this caller is given, ``None`` if it waits in vain.

        Args:
            wait: waits until the waiter is given something, or until it is too late. It is not
                called if nothing has to be waited for.
        """
        waiter = self._waiter()
        try:
            self.waiters.append(waiter)
            self.settle()
            if self._closed:
                waiter.send_away()
            if waiter.waits:
                wait(waiter)
            thing = waiter.leave()
        except BaseException:
            thing = waiter.leave()
            self._remove(waiter)
            if thing is not None:  # the next one's, as nobody is here to take it
                self._put_back(thing)
                self.settle()
            raise
        if thing is None:  # else whoever gave it removes him, and need not look for him
            self._remove(waiter)
        return thing

    def settle(self) -> None:
        """Give what is free to those who have waited longest, until there is no more of either.

        Whoever adds a thing or a waiter calls this afterwards. So nothing lies about while somebody
        waits, wherever in here some other thread, or this one, happens to be.
        """
        while self.waiters:
            try:
                waiter = self.waiters[0]
            except IndexError:  # he left this very moment
                return
            if waiter.waits:
                thing = self._free()
                if thing is None:
                    return
                if not waiter.offer(thing):  # he left, or was given another one, just now
                    self._put_back(thing)
            self._remove(waiter)

    def close(self) -> None:
        """Send everybody away who waits, and let nobody wait from now on."""
        self._closed = True
        for waiter in tuple(self.waiters):
            waiter.send_away()

    def _remove(self, waiter: Waiter[T]) -> None:
        if waiter in self.waiters:
            with suppress(ValueError):  # done by another thread this very moment
                self.waiters.remove(waiter)


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _seconds_until(deadline: float | None) -> float:
    # What a lock takes: -1 means for ever, and for ever is not much longer than the maximum.
    if deadline is None:
        return -1
    left = deadline - monotonic()
    return 0.0 if left < 0 else min(left, threading.TIMEOUT_MAX)
