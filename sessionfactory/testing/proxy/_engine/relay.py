"""The proxy's end of the network: a port of its own, and what becomes of those who call there."""

from __future__ import annotations

from functools import partial
from time import monotonic
from typing import TYPE_CHECKING

from . import sockets
from .dial import Dial
from .loop import READ, Loop
from .mysql import MySQL
from .network import Network
from .postgresql import PostgreSQL
from .trap import Trap
from .wire import Conversation

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from .sockets import Address

_PROTOCOLS: dict[str, type[Conversation]] = {"postgresql": PostgreSQL, "mysql": MySQL}
_BACKLOG = 1024


class Relay:
    """Accepts clients, and puts faults into force: each method returns when its fault is."""

    def __init__(self, loop: Loop, protocol: str, report: Callable[[int, str], None]) -> None:
        self._network = Network(loop, _PROTOCOLS.get(protocol, Conversation))
        self._loop = loop
        self._report = report
        self._traps: dict[int, Trap] = {}
        # Bound and never listening, it keeps the port ours while connections are to be refused.
        self._claim = sockets.bind(0)
        self.port: int = self._claim.getsockname()[1]
        self._listener: socket.socket | None = None
        self.mode("restore")

    def mode(self, mode: str) -> None:
        """Treat connections normally ("restore"), or as "black hole", "deaf" or "refuse" say."""
        self._network.frozen = self._loop.paused = mode == "black hole"
        if mode == "restore":
            for trap in self._traps.values():
                trap.disarm()
            self._rearm()
        if mode == "refuse":
            self._hang_up()
        elif self._listener is None:
            self._listener = sockets.bind(self.port)
            self._listener.listen(_BACKLOG)
        if self._listener is not None:
            accept = partial(self._accept, self._listener)
            self._loop.watch(self._listener, 0 if mode == "deaf" else READ, accept)
        for party in list(self._network.parties):
            party.refresh()

    def reset(self) -> None:
        """Reset all connections, on both sides."""
        for party in list(self._network.parties):
            party.end(reset_client=True, reset_server=True)

    def upstream(self, addresses: list[Address]) -> None:
        """Carry new connections to the first of these addresses that takes them."""
        # What comes as JSON has a list in place of a tuple.
        self._network.addresses = [
            (family, address if isinstance(address, str) else (address[0], address[1]))
            for family, address in addresses
        ]

    def latency(self, seconds: float) -> None:
        """Delay what arrives from now on by this much for each round trip."""
        self._network.latency = seconds

    def cut(self, trap: int, when: str, statement: str, times: int, delay: float | None) -> None:
        """Set a trap, known by this number from now on."""
        self._traps[trap] = Trap(
            when, statement, times, delay, lambda event: self._report(trap, event)
        )
        self._rearm()

    def release(self, trap: int) -> None:
        """Deliver at once what the trap holds back."""
        for release in self._traps[trap].release():
            self._loop.at(monotonic(), release)

    def disarm(self, trap: int) -> None:
        """Let everything pass this trap from now on."""
        self._traps[trap].disarm()
        self._rearm()

    def look(self, trap: int) -> dict[str, object]:
        """Tell what the trap has seen and done."""
        found = self._traps[trap]
        return {
            "sprung": found.sprung,
            "delivered": found.delivered,
            "passed": list(found.passed),
            "unreadable": sum(not party.readable for party in self._network.parties),
        }

    def record(self, number: int) -> None:
        """Begin to count anew, under this number."""
        self._network.ledger.record(number)

    def read(self, number: int | None = None, *, last: bool = False) -> dict[str, object]:
        """Give the counts of this number, or of all time; forget them after the last look."""
        return {
            **self._network.ledger.read(number, last=last),
            "open": sum(party.open for party in self._network.parties),
        }

    def _accept(self, listener: socket.socket, _ready: int) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return  # nobody is left waiting, or the listener has been closed
            client.setblocking(False)
            self._network.ledger.connection()
            Dial(self._network, client)

    def _hang_up(self) -> None:
        if self._listener is not None:
            self._loop.forget(self._listener)
            self._listener.close()
            self._listener = None

    def _rearm(self) -> None:
        self._network.traps = [trap for trap in self._traps.values() if trap.armed]
