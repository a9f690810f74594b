"""A queue of waiters. A waiter may give up while it is offered an item: one of the two wins.

There are no locks. Garbage collection may return a dropped connection, and a signal handler may
raise, between any two instructions of this module: a lock would be held at that moment, or stay
held. One operation on a dictionary is atomic.
"""

from __future__ import annotations

import asyncio
import threading
from abc import ABC, abstractmethod
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Generic, TypeVar, cast

from sqlalchemy.util.concurrency import await_only

from sessionfactory.clock import monotonic

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class _Nothing:
    """The outcome of a waiter that gave up, or that ``send_away`` ended."""


_GAVE_UP: Final = _Nothing()


class Waiter(ABC, Generic[T]):
    """A caller that waits for one item. Thread-safe.

    A waiter either receives an item or gives up; exactly one of the two happens. An item that it
    refused goes to the next waiter; an item that a waiter received before it gave up is
    returned by its ``give_up``.
    """

    __slots__ = ("_outcome",)

    def __init__(self) -> None:
        # Empty while it waits. ``setdefault`` is the one step that decides, and it is atomic.
        self._outcome: dict[None, object] = {}

    @property
    def waits(self) -> bool:
        """Whether it has neither received an item nor given up."""
        return not self._outcome

    def offer(self, item: T) -> bool:
        """Give it an item; return ``False`` if it gave up or has one already."""
        if self._outcome.setdefault(None, item) is not item:
            return False
        self._wake()
        return True

    def send_away(self) -> None:
        """End its wait without an item, if it still waits."""
        nothing = _Nothing()
        if self._outcome.setdefault(None, nothing) is nothing:
            self._wake()

    def give_up(self) -> T | None:
        """Stop waiting; return the item that it received before. Idempotent."""
        outcome = self._outcome.setdefault(None, _GAVE_UP)
        return None if isinstance(outcome, _Nothing) else cast("T", outcome)

    @abstractmethod
    def wait(self, deadline: float | None) -> None:
        """Wait for an item, until the deadline on the monotonic clock.

        What interrupts the wait is raised; ``give_up`` has to be called in every case.
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
        # Look again only now: what offers an item before this line does not see the lock.
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

    def offer(self, item: T) -> bool:
        """Give the task an item; return ``False``, too, if its event loop is closed."""
        if self._loop is not None and self._loop.is_closed():
            return False
        return super().offer(item)

    def wait(self, deadline: float | None) -> None:
        """Await, so that the event loop runs on; the task may be cancelled meanwhile."""
        loop = self._loop = asyncio.get_running_loop()
        asleep = self._asleep = loop.create_future()
        if not self.waits:  # for the same reason as in a thread
            return
        if deadline is None:
            await_only(asleep)
            return
        timer = loop.call_later(deadline - monotonic(), _finish, asleep)
        try:
            await_only(asleep)
        finally:
            timer.cancel()

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
        with suppress(RuntimeError):  # it was closed concurrently
            loop.call_soon_threadsafe(_finish, asleep)


class WaitQueue(Generic[T]):
    """Waiters, served in the order in which they came. Thread-safe.

    Args:
        waiter: makes a waiter for a caller: a thread or a task.
        take: returns an item that is free, if there is one.
        put_back: takes back an item that no waiter received.
    """

    def __init__(
        self,
        waiter: Callable[[], Waiter[T]],
        take: Callable[[], T | None],
        put_back: Callable[[T], None],
    ) -> None:
        self.waiters: deque[Waiter[T]] = deque()
        self._waiter = waiter
        self._take = take
        self._put_back = put_back
        self._closed = False

    def acquire(self, wait: Callable[[Waiter[T]], None]) -> T | None:
        """Return an item for this caller; ``None`` if it received none.

        Args:
            wait: waits until the waiter receives an item, or until the deadline. It is not called
                if an item is free at once.
        """
        waiter = self._waiter()
        try:
            self.waiters.append(waiter)
            self.serve()
            if self._closed:
                waiter.send_away()
            if waiter.waits:
                wait(waiter)
            item = waiter.give_up()
        except BaseException:
            item = waiter.give_up()
            self._remove(waiter)
            if item is not None:  # it goes to the next waiter
                self._put_back(item)
                self.serve()
            raise
        if item is None:  # else ``serve`` removed the waiter
            self._remove(waiter)
        return item

    def serve(self) -> None:
        """Give free items to those who have waited longest, until either runs out.

        Code that adds an item or a waiter calls this afterwards, so that no item stays free while
        a waiter waits, even if several threads run this at once.
        """
        while self.waiters:
            try:
                waiter = self.waiters[0]
            except IndexError:  # it was removed concurrently
                return
            if waiter.waits:
                item = self._take()
                if item is None:
                    return
                if not waiter.offer(item):  # it gave up, or received another item, concurrently
                    self._put_back(item)
            self._remove(waiter)

    def close(self) -> None:
        """Send all waiters away, and every later one at once."""
        self._closed = True
        for waiter in tuple(self.waiters):
            waiter.send_away()

    def _remove(self, waiter: Waiter[T]) -> None:
        if waiter in self.waiters:
            with suppress(ValueError):  # another thread removed it concurrently
                self.waiters.remove(waiter)


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _seconds_until(deadline: float | None) -> float:
    # What a lock takes: -1 is no limit; more than the maximum is refused.
    if deadline is None:
        return -1
    left = deadline - monotonic()
    return 0.0 if left < 0 else min(left, threading.TIMEOUT_MAX)
