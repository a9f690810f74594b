"""The end of all factories that a registry built: one deadline, and none is left out.

All refuse new sessions at once; they drain side by side; what is late is cut side by side.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Generic, TypeVar

from sessionfactory.clock import monotonic

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from sessionfactory.status import Holder

F = TypeVar("F")


class Closing(Generic[F]):
    """One call of ``close()``: its deadline, and what came of each factory.

    Args:
        built: the factories, newest first.
        timeout: seconds for all of them together.
        end: the name of the method that closes one.
    """

    def __init__(self, built: Sequence[tuple[str, F]], timeout: float, end: str) -> None:
        self.deadline: float = monotonic() + timeout
        self.factories: list[tuple[str, F]] = [item for item in built if hasattr(item[1], end)]
        self.cut: dict[str, tuple[Holder, ...]] = {}
        self._failed: dict[str, Exception] = {}
        self._interrupt: BaseException | None = None

    @property
    def left(self) -> float:
        """Seconds until the deadline."""
        return max(0.0, self.deadline - monotonic())

    def refuse_sessions(self) -> None:
        """Make all factories refuse new sessions, and cut what the caller holds itself."""
        for name, factory in self.factories:
            if is_ours(factory):
                with self.reporting(name):
                    factory.start_close()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]

    @contextmanager
    def reporting(self, name: str) -> Generator[None]:
        """Report what the block raises at the end, when all are closed."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - the others are closed all the same
            error.add_note(f"while closing the database {name!r}")
            self._failed[name] = error
        except BaseException as error:  # noqa: BLE001 - an interrupt: the others without a wait
            self._interrupt, self.deadline = error, 0.0

    @property
    def late(self) -> list[tuple[str, F]]:
        """Our factories, which still have to be closed."""
        return [
            (name, factory)
            for name, factory in self.factories
            if is_ours(factory) and name not in self._failed
        ]

    def finish(
        self, outcomes: Sequence[tuple[Holder, ...] | BaseException]
    ) -> dict[str, tuple[Holder, ...]]:
        """Return, by name, the holders that were cut off.

        Args:
            outcomes: what closing those that were late returned or raised.

        Raises:
            ExceptionGroup: what the factories raised.
        """
        for (name, _), outcome in zip(self.late, outcomes, strict=True):
            with self.reporting(name):
                if isinstance(outcome, BaseException):
                    raise outcome
                self.cut[name] = outcome
        if self._interrupt is not None:
            raise self._interrupt
        names = [name for name, _ in self.factories]
        if self._failed:
            errors = [self._failed[name] for name in names if name in self._failed]
            raise ExceptionGroup("databases that could not be closed", errors)
        return {name: self.cut[name] for name in names if self.cut.get(name)}


def is_ours(factory: object) -> bool:
    """Return whether a factory closes in two steps; custom ones have ``close`` alone."""
    return hasattr(factory, "start_close")
