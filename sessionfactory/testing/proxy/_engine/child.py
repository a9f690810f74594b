"""The proxy's process: obeys the commands that come in, and ends when nobody can send any more."""

from __future__ import annotations

import json
import signal
import socket
import sys
from typing import TYPE_CHECKING, Any

from .loop import READ, Loop
from .relay import Relay

if TYPE_CHECKING:
    from collections.abc import Callable


class Child:
    """Takes commands, a line of JSON each, from a socket, and answers each once it is in force.

    A command is `{"id": 7, "do": "latency", "seconds": 0.002}`, its answer `{"id": 7, "value": …}`
    or `{"id": 7, "error": "…"}`. Between answers come events: `{"trap": 3, "event": "fired"}`.
    """

    def __init__(self, control: socket.socket, protocol: str) -> None:
        self._control = control
        self._line = b""
        self._ended = False
        self._loop = Loop()
        relay = self._relay = Relay(self._loop, protocol, self._report)
        self._commands: dict[str, Callable[..., object]] = {
            command.__name__: command
            for command in (
                *(relay.mode, relay.reset, relay.upstream, relay.latency),
                *(relay.cut, relay.release, relay.disarm, relay.look, relay.record, relay.read),
            )
        }

    def run(self) -> None:
        """Serve until the other end of the control socket is closed."""
        self._loop.watch(self._control, READ, self._read)
        self._tell({"port": self._relay.port})
        while not self._ended:
            self._loop.turn()

    def _read(self, _ready: int) -> None:
        try:
            data = self._control.recv(1 << 16)
        except OSError:
            data = b""
        self._ended = not data
        *lines, self._line = (self._line + data).split(b"\n")
        for line in lines:
            self._obey(json.loads(line))

    def _obey(self, command: dict[str, Any]) -> None:
        number, do = command.pop("id"), command.pop("do")
        try:
            self._tell({"id": number, "value": self._commands[do](**command)})
        except OSError as error:
            self._tell({"id": number, "error": f"{type(error).__name__}: {error}"})

    def _report(self, trap: int, event: str) -> None:
        self._tell({"trap": trap, "event": event})

    def _tell(self, message: dict[str, object]) -> None:
        try:
            self._control.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            self._ended = True


def main() -> None:
    """Run the proxy for the protocol that the command line names, controlled by descriptor 0."""
    # Ctrl-C goes to the whole group; the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with socket.socket(fileno=0) as control:
        Child(control, sys.argv[-1]).run()
