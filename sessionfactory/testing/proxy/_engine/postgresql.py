"""PostgreSQL's protocol, version 3, as far as statements and turns need it.

https://www.postgresql.org/docs/current/protocol-message-formats.html
"""

from __future__ import annotations

from struct import unpack_from

from .wire import ReadableConversation, Statement

_VERSION = 3
_CANCEL, _SSL, _GSS = (1234 << 16 | code for code in (5678, 5679, 5680))
_START_UP_SIZES = range(8, 10_001)  # the server takes no larger one

_QUERY, _PARSE, _BIND, _EXECUTE, _CLOSE, _SYNC, _FUNCTION = b"QPBECSF"
_PREPARED = ord("S")
_READY, _COPY_IN, _COPY_BOTH = b"ZGW"
_SYNC_MESSAGE = b"S\x00\x00\x00\x04"


class PostgreSQL(ReadableConversation):
    """Reads simple and extended queries; an answer ends with ReadyForQuery."""

    def __init__(self) -> None:
        super().__init__()
        self._started = False
        self._negotiating = False
        self._synced = False
        self._prepared: dict[bytes, bytes] = {}
        self._portals: dict[bytes, bytes] = {}
        self._header = b""
        self._skip = 0

    def _size(self, data: bytes, start: int) -> int:
        if self._started:
            if len(data) < start + 5:
                return 5
            size: int = unpack_from(">I", data, start + 1)[0]
            return size + 1
        if len(data) < start + 8:
            return 8
        size, code = unpack_from(">ii", data, start)
        known = code >> 16 == _VERSION or code in (_CANCEL, _SSL, _GSS)
        if not known or size not in _START_UP_SIZES:
            raise ValueError("a TLS handshake, say, that no request in clear text announced")
        return size

    def _message(self, data: bytes, start: int, end: int) -> Statement | None:
        if not self._started:
            self._start(unpack_from(">i", data, start + 4)[0])
            return None
        kind = data[start]
        if kind in (_QUERY, _SYNC, _FUNCTION):
            self.asked += 1
            self._synced = kind == _SYNC
        if kind == _QUERY:
            return Statement(start, _text(data[start + 5 : end - 1]), self.asked)
        if kind == _EXECUTE:
            # What the client executes it was told by Parse and Bind, perhaps long ago; the answer
            # comes with the Sync that follows.
            portal = _string(data, start + 5, end)
            return Statement(start, _text(self._portals.get(portal, b"")), self.asked + 1)
        if kind == _PARSE:
            name = _string(data, start + 5, end)
            self._prepared[name] = _string(data, start + 6 + len(name), end)
        elif kind == _BIND:
            portal = _string(data, start + 5, end)
            name = _string(data, start + 6 + len(portal), end)
            self._portals[portal] = self._prepared.get(name, b"")
        elif kind == _CLOSE:
            names = self._prepared if data[start + 5] == _PREPARED else self._portals
            names.pop(_string(data, start + 6, end), None)
        return None

    def _start(self, code: int) -> None:
        if code in (_SSL, _GSS):
            self._negotiating = True
        else:
            self._started = True
            self.asked += 1

    def from_server(self, data: bytes) -> None:
        """Count the answers that are complete."""
        if self._negotiating:
            self._negotiating = False
            # One byte without a header; an old server may send an error message instead.
            if data[:1] in (b"S", b"G"):
                self.give_up()
            elif data[:1] == b"N":
                data = data[1:]
        if not self.readable:
            return
        data = self._header + data
        start, end = self._skip, len(data)
        while start + 5 <= end:
            kind = data[start]
            if kind == _READY:
                self.login = False
                self.answered += 1
            elif kind in (_COPY_IN, _COPY_BOTH) and self._synced:
                # The server ignores the Sync that libpq sends along with such a COPY, and answers
                # the one after it.
                self.asked -= 1
            start += 1 + unpack_from(">I", data, start + 1)[0]
        self._skip = max(0, start - end)
        self._header = data[start:]

    def finish(self) -> bytes:
        """A Sync, without which the server keeps the answer to an extended query to itself."""
        self.asked += 1
        return _SYNC_MESSAGE


def _string(data: bytes, start: int, end: int) -> bytes:
    return data[start : data.index(0, start, end)]


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")
