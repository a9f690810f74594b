"""Secrets that change while a program runs: tokens that expire, files that are replaced."""

from __future__ import annotations

import inspect
import threading
import time
from typing import TYPE_CHECKING, cast
from weakref import WeakKeyDictionary

from sessionfactory._lazy import publish
from sessionfactory.config.masking import Secret

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Lock
    from collections.abc import Awaitable, Callable


class Answer(Secret):
    """What the function of a rotating secret returned once.

    Attributes:
        asked_at: when the function was called, on the clock of ``time.monotonic``.
    """

    __slots__ = ("asked_at",)

    def __init__(self, text: object, asked_at: float) -> None:
        if not isinstance(text, str):
            kind = type(text).__name__
            del text  # no frame of the error shows it
            raise TypeError(f"the function of the password returned {kind}, not text")
        super().__init__(text)
        self.asked_at: float = asked_at


class RotatingSecret(Secret):
    """A secret that a function returns when a connection is opened: an expiring token, perhaps.

    ``DatabaseSettings(url, password=get_token)`` is short for
    ``DatabaseSettings(url, password=RotatingSecret(get_token))``. When the database refuses a
    value, the function is called once more before the connection fails. Connections that are opened
    at the same time share one call. Two rotating secrets are equal only if they are the same
    object. Thread-safe.

    Args:
        function: returns the secret; a coroutine function serves the async half only. The async
            half calls a plain function in a thread, so that it may block.
        cached_for: seconds for which a value is used again.
    """

    __slots__ = ("_function", "_lock", "_loop_locks", "cached_for", "is_async", "last")

    def __init__(
        self,
        function: Callable[[], str] | Callable[[], Awaitable[str]],
        *,
        cached_for: float = 60.0,
    ) -> None:
        super().__init__("")
        self.cached_for: float = cached_for
        self.is_async: bool = inspect.iscoroutinefunction(function)
        self._function = function
        self.last: Answer | None = None
        """What the function returned last; ``None`` before its first call."""
        self.start_anew()

    def start_anew(self) -> None:
        """Replace the locks in a forked child, where the thread that holds one does not exist."""
        # Re-entrant: a signal handler that opens a connection may interrupt the function.
        self._lock = threading.RLock()
        self._loop_locks: WeakKeyDictionary[AbstractEventLoop, Lock] = WeakKeyDictionary()

    def reveal(self) -> str:
        """Return the last value; call the function if there is none."""
        return (self.last or self.refresh(None)).reveal()

    @property
    def fresh(self) -> Answer | None:
        """The last answer, if it may be used again."""
        last = self.last
        is_fresh = last is not None and time.monotonic() - last.asked_at < self.cached_for
        return last if is_fresh else None

    def refresh(self, seen: Answer | None) -> Answer:
        """Return an answer newer than one that was seen: a concurrent call's, or a call's own."""
        with self._lock:
            if self.last is seen or self.last is None:
                asked_at = time.monotonic()
                self.last = Answer(self._function(), asked_at)
            return self.last

    async def refresh_async(self, seen: Answer | None) -> Answer:
        """Return a newer answer as ``refresh`` does; the event loop goes on meanwhile."""
        import asyncio  # noqa: PLC0415 - the sync half does without

        lock = self._loop_locks.setdefault(asyncio.get_running_loop(), asyncio.Lock())
        async with lock:
            if not self.is_async:
                return await asyncio.to_thread(self.refresh, seen)
            if self.last is seen or self.last is None:
                asked_at = time.monotonic()
                answer = await cast("Callable[[], Awaitable[str]]", self._function)()
                self.last = Answer(answer, asked_at)
            return self.last

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)

    def __bool__(self) -> bool:
        return True


publish(RotatingSecret)
