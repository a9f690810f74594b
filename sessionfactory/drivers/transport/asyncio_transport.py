"""Connections that speak through a transport of asyncio: asyncpg, aiomysql, asyncmy.

Neither asyncio nor these drivers have public names for what is done here;
``tests/pool/test_loop_binding.py`` notices if one of them moves.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from sessionfactory.drivers.transport.encryption import Encryption, of_ssl_object


def transport_of(handle: Any) -> Any:
    """Return the asyncio transport of a connection."""
    if hasattr(handle, "_transport"):  # asyncpg
        return handle._transport  # noqa: SLF001 - no public name
    return handle._writer.transport  # noqa: SLF001 - no public name


def descriptor(handle: Any) -> int:
    """Return the descriptor of a connection's socket."""
    return int(transport_of(handle).get_extra_info("socket").fileno())


def abort(handle: Any, _descriptor: int | None = None) -> None:
    """Close a connection's socket without waiting for anything."""
    transport_of(handle).abort()


def is_in_c(_handle: Any) -> bool:
    """Return ``False``: C code, if any, runs in the event loop's thread only."""
    return False


def encryption(handle: Any) -> Encryption:
    """Look at a connection's own encryption."""
    return of_ssl_object(transport_of(handle).get_extra_info("ssl_object"))


def abandon(handle: Any) -> None:
    """Close the socket of a connection whose event loop is gone."""
    transport = transport_of(handle)
    close = getattr(handle, "terminate", None) or handle.close
    with suppress(RuntimeError):  # "Event loop is closed", from the transport at its end
        close()
    close()  # the rest of it, now that the transport believes that it is closing
    ssl_protocol = getattr(transport, "_ssl_protocol", None)
    bare = transport if ssl_protocol is None else ssl_protocol._transport  # noqa: SLF001
    bare._call_connection_lost(None)  # noqa: SLF001 - what abort() makes the loop call
