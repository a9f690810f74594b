"""Every error that this package raises on its own account.

SessionFactoryError
├── SettingsError (also ValueError)          configuration that cannot be used; lists every fault
├── NotConfiguredError (also RuntimeError)   a database that nobody configured was used
├── ClosedError (also RuntimeError)          a factory or registry was used after ``close()``
├── ReadOnlyError                            a read-only transaction tried to write
├── PoolExhaustedError (also sqlalchemy.exc.TimeoutError)
│                                            no connection came free in time; lists who holds them
└── of sessionfactory.testing
    ├── ConformanceError (also AssertionError)  a factory breaks promises of the interface
    ├── InterleavedTransactionsError            a transaction ended while a later one was open
    ├── IsolationError                          a test left a session open, or lost its database
    ├── ConcurrentUseError                      two threads or tasks in one connection
    ├── SessionLeftOpenError                    a test left a transaction open
    ├── ConnectionLostError                     a test lost the connection under its fake
    └── NotUndoneError                          something was committed that cannot be undone

``PoolExhaustedError`` lives in ``sessionfactory.engine.errors``, because this module must not
import SQLAlchemy. SQLAlchemy's own errors pass through untouched. No message contains a secret.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class SessionFactoryError(Exception):
    """Base of all errors of this package."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with a configuration."""

    path: str
    """Where it is: ``default.pool.size``, or ``size`` when a settings class was built directly."""
    problem: str
    """What was expected, and what to do. Never the text that was given: it may be a secret."""
    origin: str | None = None
    """Who said it: an environment variable, or a key of a file; ``None`` when code said it."""

    def __str__(self) -> str:
        if not self.path:
            return f"{self.origin}: {self.problem}" if self.origin else self.problem
        origin = f" ({self.origin})" if self.origin else ""
        return f"{self.path}{origin}: {self.problem}"


class SettingsError(SessionFactoryError, ValueError):
    """A configuration cannot be used; ``faults`` says everything that is wrong with it at once."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults: tuple[Fault, ...] = tuple(faults)
        super().__init__(self.faults)

    def __str__(self) -> str:
        if len(self.faults) == 1:
            return f"Invalid database settings: {self.faults[0]}"
        lines = [f"Invalid database settings, {len(self.faults)} faults:", *map(str, self.faults)]
        return "\n  - ".join(lines)


class NotConfiguredError(SessionFactoryError, RuntimeError):
    """A database was used that is not configured; the message names the setting to add."""


class ClosedError(SessionFactoryError, RuntimeError):
    """A factory, or the registry that owns it, was used after it had been closed."""


class ReadOnlyError(SessionFactoryError):
    """The database refused a write, because the transaction is read-only."""
