"""What we do with sockets: all of them TCP on loopback or unix sockets, and none ever blocks."""

from __future__ import annotations

import socket
from errno import EINPROGRESS
from struct import pack

Address = tuple[int, "str | tuple[str, int]"]
"""An address family and an address as sockets take it."""


def bind(port: int) -> socket.socket:
    """Make a socket with a port of the loopback interface; 0 takes a free one.

    Several may share a port as long as none of them listens.
    """
    sock = socket.socket()
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", port))
    return sock


def connect(address: Address) -> socket.socket | None:
    """Begin to connect: done once the socket can be written; `None` if it cannot even begin."""
    family, place = address
    sock = socket.socket(family)
    sock.setblocking(False)
    if sock.connect_ex(place) in (0, EINPROGRESS):
        return sock
    sock.close()
    return None


def is_connected(sock: socket.socket) -> bool:
    """Whether the connection that was begun has come about."""
    return not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


def hurry(sock: socket.socket) -> None:
    """Send each message at once, rather than wait for more to send along with it."""
    if sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def close(sock: socket.socket, *, reset: bool) -> None:
    """Close in the ordinary way, or drop all that is on its way and reset the connection."""
    if reset and sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, pack("ii", 1, 0))
    sock.close()


def push(sock: socket.socket, waiting: bytearray, data: bytes) -> None:
    """Send what the system takes now, in order, and keep the rest waiting."""
    if waiting:
        waiting += data
        del waiting[: _send(sock, waiting)]
    elif data:
        waiting += data[_send(sock, data) :]


def _send(sock: socket.socket, data: bytes | bytearray) -> int:
    try:
        return sock.send(data)
    except BlockingIOError:
        return 0
