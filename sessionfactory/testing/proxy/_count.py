"""What passed the proxy during a block."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sessionfactory.testing.proxy._control import Control


class Count:
    """Counts of one `FaultProxy.counting` block: live inside it, final afterwards."""

    def __init__(self, control: Control, number: int) -> None:
        self._control = control
        self._number = number
        self._final: dict[str, Any] | None = None
        control.request("record", number=number)

    @property
    def round_trips(self) -> int:
        """How often a client spoke and the server answered, on all connections, without logins.

        A round trip is a flight of messages from the client, however many, up to where the server
        begins to answer; it counts when the first byte of that answer passes, and what is sent
        without ever being answered does not count. So pipelined messages count once, if they are
        sent before the answer to the first of them has come back through the proxy.
        """
        return int(self._read()["round_trips"])

    @property
    def login_round_trips(self) -> int:
        """Round trips of connections up to where the server accepted their first statement.

        Where this cannot be told, under TLS or another protocol, all count in `round_trips`.
        """
        return int(self._read()["login_round_trips"])

    @property
    def connections(self) -> int:
        """How many connections were accepted."""
        return int(self._read()["connections"])

    @property
    def flights(self) -> list[list[str]]:
        """The statements executed in each of `round_trips`, in the order of the answers.

        A flight without a statement, such as one that only prepares, is an empty list.
        """
        return [list(map(str, flight)) for flight in self._read()["flights"]]

    @property
    def statements(self) -> list[str]:
        """All statements that were executed, those of prepared statements included."""
        return [statement for flight in self.flights for statement in flight]

    def finish(self) -> None:
        """Take the final values; `FaultProxy.counting` does."""
        self._final = self._read(last=True)

    def __repr__(self) -> str:
        return f"<Count of {self.round_trips} round trips in {self.connections} new connections>"

    def _read(self, *, last: bool = False) -> dict[str, Any]:
        if self._final is not None:
            return self._final
        answer: dict[str, Any] = self._control.request("read", number=self._number, last=last)
        return answer
