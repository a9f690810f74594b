"""Secrets that change while a program runs: tokens that are asked for, files that are replaced."""

from __future__ import annotations

import inspect
import threading
import time
from typing import TYPE_CHECKING, cast

from sessionfactory.config.masking import Secret

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class RotatingSecret(Secret):
    """A secret that is asked for when a connection is opened: a token that expires, for instance.

    ``DatabaseSettings(url, password=get_token)`` is short for
    ``DatabaseSettings(url, password=RotatingSecret(get_token))``. When the database turns an answer
    down, it is asked for once more before the connection fails. Two of them are equal only if they
    are the same object. Thread-safe.

    Args:
        ask: returns the secret; a coroutine function serves the async half only. A plain function
            is called in a thread by the async half, so that it may block.
        cached_for: seconds for which an answer is used again.
    """

    __slots__ = ("_ask", "_asked", "_lock", "cached_for", "is_async")

    def __init__(
        self, ask: Callable[[], str] | Callable[[], Awaitable[str]], *, cached_for: float = 60.0
    ) -> None:
        super().__init__("")
        self.cached_for: float = cached_for
        self.is_async: bool = inspect.iscoroutinefunction(ask)
        self._ask = ask
        self._asked: float | None = None
        self.start_anew()

    def start_anew(self) -> None:
        """Wait for nobody, in a forked child, where the thread that was asking does not exist."""
        self._lock = threading.Lock()

    def reveal(self) -> str:
        """Return the last answer; ask if there is none."""
        if self._asked is None:
            self.refresh()
        return self._text

    @property
    def is_fresh(self) -> bool:
        """Whether the last answer may be used again."""
        return self._asked is not None and time.monotonic() - self._asked < self.cached_for

    def refresh(self) -> None:
        """Ask."""
        with self._lock:
            self._note(cast("Callable[[], str]", self._ask)())

    async def refresh_async(self) -> None:
        """Ask a coroutine function."""
        self._note(await cast("Callable[[], Awaitable[str]]", self._ask)())

    def _note(self, answer: object) -> None:
        if not isinstance(answer, str):
            raise TypeError(f"the password's function returned {type(answer).__name__}, not text")
        self._text = answer
        self._asked = time.monotonic()

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)

    def __bool__(self) -> bool:
        return True
