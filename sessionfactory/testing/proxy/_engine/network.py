"""What all connections of a proxy have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from .ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import Callable

    from .loop import Loop
    from .sockets import Address
    from .trap import Trap
    from .wire import Conversation


class Party(Protocol):
    """A client that was accepted, with a connection to the server or on the way to one."""

    @property
    def open(self) -> bool:
        """Whether the client still holds its end."""
        ...

    @property
    def readable(self) -> bool:
        """Whether statements can be read on this connection."""
        ...

    def refresh(self) -> None:
        """Watch the sockets for what can be done with them now, which is nothing when frozen."""

    def end(self, *, reset_client: bool = False, reset_server: bool = False) -> None:
        """Close both sockets, each with a reset or in the ordinary way."""


class Network:
    """The state that faults change while connections last."""

    def __init__(self, loop: Loop, conversation: Callable[[], Conversation]) -> None:
        self.loop = loop
        self.conversation = conversation
        self.addresses: list[Address] = []
        self.latency = 0.0
        self.frozen = False
        self.traps: list[Trap] = []
        self.ledger = Ledger()
        self.parties: set[Party] = set()
