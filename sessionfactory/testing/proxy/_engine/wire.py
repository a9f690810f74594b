"""What passes between client and server, read as messages wherever the network cuts the stream.

Each class follows one connection. `from_client` hands on whole messages only, so that a message can
be held back; `from_server` looks on.
"""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from typing import NamedTuple


class Statement(NamedTuple):
    """SQL text that the server is told to execute."""

    start: int
    """Where its message begins in the bytes that are handed on."""
    text: str
    answer: int
    """The server has answered it once `Conversation.answered` has reached this number."""


class Conversation:
    """A conversation in a language that we do not read: it only passes through."""

    def __init__(self) -> None:
        self.login = False
        """Whether the connection is still being made: no statement can be sent yet."""
        self.readable = False
        """Whether statements can be told from other bytes: false once encrypted or compressed."""
        self.asked: int = 0
        self.answered: int = 0

    def from_client(self, data: bytes) -> tuple[bytes, list[Statement]]:
        """Take what the client sent; give what may be handed on, and the statements in it."""
        return data, []

    def from_server(self, data: bytes) -> None:
        """Take note of what the server sent."""

    def finish(self) -> bytes:
        """Bytes that make the server answer what was sent last, where the protocol needs any."""
        return b""


class ReadableConversation(Conversation, ABC):
    """A conversation in a language that we read, until it turns out to be another one."""

    def __init__(self) -> None:
        super().__init__()
        self.login = self.readable = True
        self._partial: list[bytes] = []
        self._missing = 0

    def from_client(self, data: bytes) -> tuple[bytes, list[Statement]]:
        """Take what the client sent; give the messages that are complete, and their statements."""
        if not self.readable:
            return data, []
        if self._missing > len(data):
            # Joined only when complete: a large message comes in thousands of pieces.
            self._partial.append(data)
            self._missing -= len(data)
            return b"", []
        if self._partial:
            data = b"".join((*self._partial, data))
            self._partial.clear()
        self._missing = 0
        try:
            return self._whole_messages(data)
        except (LookupError, ValueError, struct.error):
            self.give_up()
            return data, []

    def give_up(self) -> None:
        """From here on this is nothing that we can read: it passes as it is."""
        self.login = self.readable = False

    def _whole_messages(self, data: bytes) -> tuple[bytes, list[Statement]]:
        statements: list[Statement] = []
        start, end = 0, len(data)
        while start < end and self.readable:
            size = self._size(data, start)
            if start + size > end:
                self._partial.append(data[start:])
                self._missing = start + size - end
                return data[:start], statements
            found = self._message(data, start, start + size)
            if found is not None:
                statements.append(found)
            start += size
        return data, statements

    @abstractmethod
    def _size(self, data: bytes, start: int) -> int:
        """Bytes of the message at `start`; of its header, while that is incomplete; at least 1.

        Raises:
            ValueError: there can be no such message.
        """

    @abstractmethod
    def _message(self, data: bytes, start: int, end: int) -> Statement | None:
        """Follow one message of the client."""
