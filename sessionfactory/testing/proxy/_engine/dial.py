"""The way to the server, which each client's connection begins with."""

from __future__ import annotations

from functools import partial
from time import monotonic
from typing import TYPE_CHECKING

from . import sockets
from .link import Link
from .loop import WRITE

if TYPE_CHECKING:
    import socket

    from .network import Network


class Dial:
    """Tries the server's addresses for one client, who is not listened to meanwhile."""

    open = True
    readable = True

    def __init__(self, network: Network, client: socket.socket) -> None:
        self._network = network
        self._client = client
        self._server: socket.socket | None = None
        self._addresses = list(network.addresses)
        self._ended = False
        network.parties.add(self)
        # Connecting is a round trip too, though the client has been told already that it is done.
        network.loop.at(monotonic() + network.latency, self._next)

    def refresh(self) -> None:
        """Watch for the connection to come about, unless frozen."""
        if self._server is not None:
            events = 0 if self._network.frozen else WRITE
            connected = partial(self._connected, self._server)
            self._network.loop.watch(self._server, events, connected)

    def end(self, *, reset_client: bool = False, reset_server: bool = False) -> None:
        """Close both sockets, each with a reset or in the ordinary way."""
        self._leave()
        sockets.close(self._client, reset=reset_client)
        if self._server is not None:
            sockets.close(self._server, reset=reset_server)

    def _leave(self) -> None:
        self._ended = True
        self._network.parties.discard(self)
        if self._server is not None:
            self._network.loop.forget(self._server)

    def _next(self) -> None:
        """Begin to connect to the next address; if there is none left, reset the client."""
        if self._ended:
            return
        self._server = None
        while self._addresses and self._server is None:
            self._server = sockets.connect(self._addresses.pop(0))
        if self._server is None:
            self.end(reset_client=True)
        else:
            self.refresh()

    def _connected(self, server: socket.socket, _ready: int) -> None:
        if sockets.is_connected(server):
            self._leave()
            Link(self._network, self._client, server)
        else:
            self._network.loop.forget(server)
            server.close()
            self._next()
