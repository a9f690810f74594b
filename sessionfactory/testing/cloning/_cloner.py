"""What both halves of cloning share: the databases, and the thread that makes and drops them."""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from sqlalchemy.exc import DBAPIError

from sessionfactory.errors import ClosedError
from sessionfactory.testing.cloning._templates import new_name
from sessionfactory.testing.memory._image import IsolationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sessionfactory.testing.cloning._templates import Templates

T = TypeVar("T")

PATIENCE: Final = 1.0
"""Seconds that other threads or tasks have to give their connections back when a test is over."""


class Cloner(Generic[T]):
    """Makes databases ahead of those who need them, and drops them behind; thread-safe.

    All that it does to databases it does in one thread, in the order in which it was asked. So
    whoever waits for it, waits for a future, and may do so in an event loop.

    Args:
        templates: how a database is copied here.
        ready: makes of the name of a new clone what is given to the test; in the thread, too.
        ahead: how many clones are made before they are asked for.
    """

    def __init__(self, templates: Templates, ready: Callable[[str], T], ahead: int) -> None:
        self._templates = templates
        self._ready = ready
        self._ahead = ahead
        self._start = new_name()
        self._numbers = count(1)
        self._template: str | None = None
        self._attempt = Future[bool]()
        self._is_attempted = False
        self._pending: deque[Future[T]] = deque()
        self._databases: dict[str, None] = {}
        self._closed = False
        self._lock = threading.Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sessionfactory-cloning")

    @property
    def leaves_databases(self) -> bool:
        """Whether there are databases that nobody will drop unless it is closed."""
        return bool(self._databases) and not self._closed

    def attempt(self) -> Future[bool] | None:
        """Return ``None`` to the one who is to prepare the template, and then ends the attempt.

        Returns:
            for all others, what tells whether somebody else has prepared it.

        Raises:
            ClosedError: there will be no clones any more.
        """
        with self._lock:
            self._refuse_if_closed()
            if self._is_attempted:
                return self._attempt
            self._is_attempted = True
            return None

    def end_attempt(self, template: str | None) -> None:
        """Tell all who wait that there is a template, or that another one has to try."""
        with self._lock:
            attempt, self._template = self._attempt, template
            if template is None:
                self._attempt, self._is_attempted = Future[bool](), False
        attempt.set_result(template is not None)

    def create(self) -> Future[str]:
        """Make an empty database, and return its name.

        Raises:
            IsolationError: from the future: it could not be made; the database's words say why.
        """
        return self._thread.submit(self._create_empty, self._name())

    def take(self) -> Future[T]:
        """Return a clone of the template, and have others made ahead.

        Raises:
            ClosedError: there will be no clones any more. So from the future, if it ends first.
            IsolationError: from the future: it could not be made; the database's words say why.
        """
        with self._lock:
            self._refuse_if_closed()
            while len(self._pending) <= self._ahead:
                self._pending.append(self._thread.submit(self._clone, self._name()))
            return self._pending.popleft()

    def give_back(self, clone: Future[T]) -> None:
        """Keep a clone, for whom it was made was interrupted while he waited for it."""
        with self._lock:
            self._pending.appendleft(clone)

    def drop(self, name: str) -> None:
        """Drop a database when there is time; if that fails, the end tries again, and tells."""
        with self._lock:
            if not self._closed:
                self._thread.submit(self._drop, name)

    def stop(self) -> Future[list[T]] | None:
        """Make no more clones.

        Returns:
            those that nobody took, which the caller disposes of; ``None`` if it was stopped before.
        """
        with self._lock:
            if self._closed:
                return None
            self._closed = True
            return self._thread.submit(self._not_taken)

    def end(self) -> Future[None]:
        """Drop every database that is left, and end the thread.

        Raises:
            IsolationError: from the future: some could not be dropped; all the others are.
        """
        ended = self._thread.submit(self._drop_all)
        self._thread.shutdown(wait=False)  # it does what it was asked to, and is gone
        return ended

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise ClosedError("This cloning session factory is closed; it makes no clones")

    def _name(self) -> str:
        return f"{self._start}_{next(self._numbers)}"

    def _create_empty(self, name: str) -> str:
        try:
            self._create(name)
        except Exception as error:
            message = f"No template could be made to clone databases from: {_words(error)}"
            raise IsolationError(message) from error
        return name

    def _clone(self, name: str) -> T:
        if self._closed:
            message = "This cloning session factory was closed before the clone was made"
            raise ClosedError(message)
        try:
            self._create(name, self._template)
            return self._ready(name)
        except Exception as error:
            message = f"No database could be cloned for this test: {_words(error)}"
            raise IsolationError(message) from error

    def _create(self, name: str, template: str | None = None) -> None:
        self._databases[name] = None  # before it is there: whatever fails now, it will be dropped
        self._templates.create(name, template)

    def _drop(self, name: str) -> None:
        self._templates.drop(name)
        del self._databases[name]

    def _not_taken(self) -> list[T]:
        return [clone.result() for clone in self._pending if clone.exception() is None]

    def _drop_all(self) -> None:
        kept: list[str] = []
        for name in list(self._databases):
            try:
                self._drop(name)
            except Exception as error:  # noqa: BLE001 - the others must go all the same
                kept.append(f"{name}: {_words(error)}")
        self._templates.close()
        if kept:
            raise IsolationError("\n  - ".join(["These databases could not be dropped:", *kept]))


def _words(error: Exception) -> str:
    """Return what the database said, without SQLAlchemy's wrapping."""
    return " ".join(str(error.orig if isinstance(error, DBAPIError) else error).split())
