"""A certificate for 127.0.0.1, and TLS before a PostgreSQL that has none."""

from __future__ import annotations

import socket
import ssl
import struct
import threading
from contextlib import contextmanager, suppress
from functools import cache
from typing import TYPE_CHECKING

import trustme

if TYPE_CHECKING:
    from collections.abc import Generator

    from sqlalchemy import URL

_SSL_REQUEST = struct.pack("!ii", 8, 80877103)


@cache
def authority() -> trustme.CA:
    """The authority that no system knows."""
    return trustme.CA()


@contextmanager
def before(upstream: URL, *hosts: str) -> Generator[int]:
    """Listen with TLS before a server, as ``hosts``; the value is the port."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority().issue_cert(*hosts or ("127.0.0.1",)).configure_cert(context)
    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=_serve, args=(listener, context, upstream), daemon=True).start()
    with listener:
        yield listener.getsockname()[1]


def _serve(listener: socket.socket, context: ssl.SSLContext, upstream: URL) -> None:
    with suppress(OSError):  # closed
        while True:
            client, _ = listener.accept()
            threading.Thread(target=_talk, args=(client, context, upstream), daemon=True).start()


def _talk(client: socket.socket, context: ssl.SSLContext, upstream: URL) -> None:
    with client, suppress(OSError):
        if client.recv(8, socket.MSG_WAITALL) != _SSL_REQUEST:
            return  # in the clear: turned away
        client.sendall(b"S")
        server = socket.create_connection((upstream.host, upstream.port))
        with server, context.wrap_socket(client, server_side=True) as safe:
            back = threading.Thread(target=_pump, args=(server, safe), daemon=True)
            back.start()
            _pump(safe, server)
            back.join()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_RDWR)
