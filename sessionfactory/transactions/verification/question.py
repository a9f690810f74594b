"""How it is found out whether a transaction has happened."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

if TYPE_CHECKING:
    from sqlalchemy import Engine

Outcome: TypeAlias = Literal["committed", "rolled back", "uncertain"]


class Question(Protocol):
    """Asks a database whether a transaction, whose connection is gone, has happened."""

    def ask(self, engine: Engine) -> tuple[Outcome | None, str]:
        """Ask once, on a connection of its own.

        Returns:
            what happened, or ``None`` while that is not settled; and the reason if it is unknown.
        """
        ...


class NothingWritten:
    """The transaction had written nothing: whether it was committed makes no difference."""

    def ask(self, engine: Engine) -> tuple[Outcome | None, str]:  # noqa: ARG002 - the interface
        """Say so."""
        return "rolled back", ""
