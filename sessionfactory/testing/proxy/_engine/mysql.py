"""The protocol of MySQL and MariaDB, as far as statements sent as text and turns need it.

https://mariadb.com/kb/en/clientserver-protocol/
"""

from __future__ import annotations

from .wire import ReadableConversation, Statement

_HEADER = 4
_OK = b"\0"
_QUERY = 3
_COMPRESSED, _TLS, _ZSTD, _ATTRIBUTES = 1 << 5, 1 << 11, 1 << 26, 1 << 27


class MySQL(ReadableConversation):
    """Reads COM_QUERY; whatever the server sends next is the answer."""

    def __init__(self) -> None:
        super().__init__()
        self._greeted = False
        self._attributes = False
        self._reply = b""

    def _size(self, data: bytes, start: int) -> int:
        if len(data) < start + _HEADER:
            return _HEADER
        return _HEADER + int.from_bytes(data[start : start + 3], "little")

    def _message(self, data: bytes, start: int, end: int) -> Statement | None:
        if self.login:
            if not self._greeted:
                self._greeted = True
                self._agree(int.from_bytes(data[start + _HEADER : start + _HEADER + 4], "little"))
            return None
        if data[start + 3]:
            return None  # a later packet of a command: the first is number 0
        self.asked += 1
        if data[start + _HEADER] != _QUERY:
            return None
        # Attributes begin with two counts, of which ours are always 0 and 1.
        text = data[start + _HEADER + (3 if self._attributes else 1) : end]
        return Statement(start, text.decode("utf-8", "replace"), self.asked)

    def _agree(self, capabilities: int) -> None:
        self._attributes = bool(capabilities & _ATTRIBUTES)
        if capabilities & (_COMPRESSED | _TLS | _ZSTD):
            self.give_up()

    def from_server(self, data: bytes) -> None:
        """Notice the end of the login, and take anything later for the answer."""
        if not self.login:
            self.answered = self.asked
            return
        self._reply += data
        while len(self._reply) >= (size := self._size(self._reply, 0)):
            if self._greeted and self._reply[_HEADER : _HEADER + 1] == _OK:
                self.login = False
            self._reply = self._reply[size:]
