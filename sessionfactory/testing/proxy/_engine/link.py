"""One client's connection: two sockets, what is on its way between them, and how it may end."""

from __future__ import annotations

import contextlib
import socket
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING

from . import sockets
from .loop import READ, WRITE
from .trap import Snare

if TYPE_CHECKING:
    from collections.abc import Callable

    from .network import Network
    from .wire import Statement

# A larger buffer would be mapped and unmapped for each read.
_CHUNK = 1 << 16
_FULL = 1 << 20


class Link:
    """Carries bytes between a client and the server, late, until one of them or a fault ends it."""

    def __init__(self, network: Network, client: socket.socket, server: socket.socket) -> None:
        self._network = network
        self._client = client
        self._server = server
        self._talk = network.conversation()
        self._flight: list[str] = []
        self._unanswered = False
        self._snare: Snare | None = None
        self._client_done = self._server_done = self._ended = False
        self._to_server = bytearray()
        self._to_client = bytearray()
        self._delayed = self._actions = 0
        self._due = 0.0
        for sock in (client, server):
            sockets.hurry(sock)
        network.parties.add(self)
        self.refresh()

    @property
    def open(self) -> bool:
        """Whether the client still holds its end."""
        return not self._client_done and self._client.fileno() >= 0

    @property
    def readable(self) -> bool:
        """Whether statements can be read on this connection."""
        return self._talk.readable

    def refresh(self) -> None:
        """Watch the sockets for what can be done with them now, which is nothing when frozen."""
        if self._ended:
            return
        loop, frozen = self._network.loop, self._network.frozen
        if self._client.fileno() >= 0:
            stop = self._client_done or self._delayed + len(self._to_server) > _FULL
            events = (0 if stop else READ) | (WRITE if self._to_client else 0)
            loop.watch(self._client, 0 if frozen else events, self._on_client)
        stop = self._server_done or len(self._to_client) > _FULL
        events = (0 if stop else READ) | (WRITE if self._to_server else 0)
        loop.watch(self._server, 0 if frozen else events, self._on_server)

    def end(self, *, reset_client: bool = False, reset_server: bool = False) -> None:
        """Close both sockets, each with a reset or in the ordinary way."""
        self._ended = True
        self._network.parties.discard(self)
        self._hang_up(reset=reset_client)
        self._network.loop.forget(self._server)
        sockets.close(self._server, reset=reset_server)
        if self._snare is not None:
            self._snare.escape()

    def _hang_up(self, *, reset: bool) -> None:
        """Close the client's socket, unless that has been done before."""
        if self._client.fileno() >= 0:
            self._network.loop.forget(self._client)
            sockets.close(self._client, reset=reset)

    # From the client to the server: all of it through _later, so that nothing overtakes.

    def _on_client(self, ready: int) -> None:
        if ready & WRITE:
            self._write_client(b"")
        if ready & READ and not self._ended:
            self._read_client()

    def _read_client(self) -> None:
        try:
            data = self._client.recv(_CHUNK)
        except OSError:
            self._leave(partial(self.end, reset_server=True))
            return
        if not data:
            self._leave(partial(self._write_server, b""))
            return
        self._unanswered = True
        whole, statements = self._talk.from_client(data)
        self._flight.extend(statement.text for statement in statements)
        if self._network.traps and self._snare is None:
            for statement in statements:
                if self._ensnare(statement, whole):
                    return
        self._forward(whole)

    def _leave(self, say: Callable[[], None]) -> None:
        """The client has closed its end: tell the server, after all that it said before."""
        self._client_done = True
        self.refresh()
        self._later(0, say)

    def _ensnare(self, statement: Statement, data: bytes) -> bool:
        """Let a trap that waits for this statement have it, with all that follows."""
        for trap in self._network.traps:
            if trap.takes(statement.text):
                self._snare = Snare(trap, statement.answer)
                self._forward(data[: statement.start])
                rest = data[statement.start :]
                self._later(len(rest), partial(self._cut, self._snare, rest))
                return True
        return False

    def _forward(self, data: bytes) -> None:
        if data:
            self._later(len(data), partial(self._write_server, data))

    def _later(self, size: int, action: Callable[[], None]) -> None:
        """Do this once the latency has passed, in order."""
        # Waking up for what the client sends, and for the answer, takes about as long as waking up
        # for a timer: that much of the latency is there without our doing.
        delay = self._network.latency - self._network.loop.lag
        now = monotonic()
        self._due = max(self._due, now + delay)
        if self._due <= now and not self._actions:
            action()
            return
        self._actions += 1
        self._delayed += size
        self._network.loop.at(self._due, partial(self._arrive, size, action))
        if self._delayed > _FULL:
            self.refresh()

    def _arrive(self, size: int, action: Callable[[], None]) -> None:
        full = self._delayed > _FULL
        self._actions -= 1
        self._delayed -= size
        if not self._ended:
            action()
        if full:
            self.refresh()

    def _write_server(self, data: bytes) -> None:
        if self._snare is not None and self._snare.held is not None:
            self._snare.held += data
            return
        busy = bool(self._to_server)
        try:
            sockets.push(self._server, self._to_server, data)
        except OSError:
            # The server has gone; what it said last is still to be read, and says why.
            self._to_server.clear()
        if self._client_done and not self._to_server and not self._actions:
            with contextlib.suppress(OSError):
                self._server.shutdown(socket.SHUT_WR)
        if busy or self._to_server:
            self.refresh()

    # From the server to the client: at once, for the whole round trip has been paid already.

    def _on_server(self, ready: int) -> None:
        if ready & WRITE:
            self._write_server(b"")
        if ready & READ:
            self._read_server()

    def _read_server(self) -> None:
        try:
            data = self._server.recv(_CHUNK)
        except OSError:
            self.end(reset_client=True)
            return
        if not data:
            self._server_done = True
            self._write_client(b"")
            return
        login = self._talk.login
        self._talk.from_server(data)
        if self._unanswered:
            self._unanswered = False
            self._network.ledger.round_trip(self._flight, login=login)
            self._flight = []
        if self._snare is None or not self._snare.withhold:
            self._write_client(data)
        elif self._snare.answer <= self._talk.answered:
            self._snare.answered()
            self._snare = None
            self.end(reset_client=True)

    def _write_client(self, data: bytes) -> None:
        busy = bool(self._to_client)
        try:
            sockets.push(self._client, self._to_client, data)
        except OSError:
            self._to_client.clear()
            self._leave(partial(self.end, reset_server=True))
            return
        if self._server_done and not self._to_client:
            self.end()
        elif busy or self._to_client:
            self.refresh()

    # What a trap does to the connection.

    def _cut(self, snare: Snare, data: bytes) -> None:
        """The statement would be handed on now: let the trap do its work."""
        if snare.trap.when == "after":
            snare.withhold = True
            self._write_server(data)
        elif snare.trap.when == "late":
            snare.withhold, snare.held = True, bytearray(data)
            snare.trap.spring()
            self._hang_up(reset=True)
            snare.trap.hold(self._release)
            if snare.trap.delay is not None:
                self._network.loop.at(monotonic() + snare.trap.delay, self._release)
        else:
            self._snare = None
            snare.trap.spring()
            self.end(reset_client=True)

    def _release(self) -> None:
        """Deliver what was held back; once."""
        snare = self._snare
        if self._ended or snare is None or snare.held is None:
            return
        data, snare.held = bytes(snare.held), None
        if self._talk.asked < snare.answer:
            data += self._talk.finish()
        self._write_server(data)
