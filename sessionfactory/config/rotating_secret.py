"""Secrets that change while a program runs: tokens that expire, files that are replaced."""

from __future__ import annotations

import inspect
import threading
import time
from typing import TYPE_CHECKING, cast

from sessionfactory._lazy import publish
from sessionfactory.config.masking import Secret

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class RotatingSecret(Secret):
    """A secret that a function returns when a connection is opened: an expiring token, perhaps.

    ``DatabaseSettings(url, password=get_token)`` is short for
    ``DatabaseSettings(url, password=RotatingSecret(get_token))``. When the database refuses a
    value, the function is called once more before the connection fails. Two rotating secrets are
    equal only if they are the same object. Thread-safe.

    Args:
        function: returns the secret; a coroutine function serves the async half only. The async
            half calls a plain function in a thread, so that it may block.
        cached_for: seconds for which a value is used again.
    """

    __slots__ = ("_function", "_lock", "_read_at", "cached_for", "is_async")

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
        self._read_at: float | None = None
        self.start_anew()

    def start_anew(self) -> None:
        """Replace the lock in a forked child, where the thread that holds it does not exist."""
        self._lock = threading.Lock()

    def reveal(self) -> str:
        """Return the last value; call the function if there is none."""
        if self._read_at is None:
            self.refresh()
        return self._text

    @property
    def is_fresh(self) -> bool:
        """Whether the last value may be used again."""
        return self._read_at is not None and time.monotonic() - self._read_at < self.cached_for

    def refresh(self) -> None:
        """Call the function."""
        with self._lock:
            self._set(cast("Callable[[], str]", self._function)())

    async def refresh_async(self) -> None:
        """Call the coroutine function."""
        self._set(await cast("Callable[[], Awaitable[str]]", self._function)())

    def _set(self, value: object) -> None:
        if not isinstance(value, str):
            raise TypeError(
                f"the function of the password returned {type(value).__name__}, not text"
            )
        self._text = value
        self._read_at = time.monotonic()

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)

    def __bool__(self) -> bool:
        return True


publish(RotatingSecret)
