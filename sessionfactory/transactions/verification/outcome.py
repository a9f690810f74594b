"""The outcome of a transaction, and what finds it out after its connection was lost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

if TYPE_CHECKING:
    from sqlalchemy import Engine

Outcome: TypeAlias = Literal["committed", "rolled back", "uncertain"]


class OutcomeCheck(Protocol):
    """Finds out whether a transaction, whose connection is lost, was committed."""

    def find(self, engine: Engine) -> tuple[Outcome | None, str]:
        """Query the database once, on another connection.

        Returns:
            the outcome, or ``None`` while it is not settled; and the reason if it is not known.
        """
        ...


class NothingWritten:
    """The transaction could not write: its outcome makes no difference."""

    def find(self, engine: Engine) -> tuple[Outcome | None, str]:  # noqa: ARG002 - the interface
        """Return that it was rolled back, so that it may be repeated."""
        return "rolled back", ""
