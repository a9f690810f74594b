"""pg8000, for the sync half: PostgreSQL in Python alone."""

from __future__ import annotations

import inspect
import struct
from typing import TYPE_CHECKING, Any, Final, cast

from sessionfactory.drivers.driver import Arguments, Code, Connect, ConnectTimeout, Driver, Keywords
from sessionfactory.drivers.transport.encryption import Encryption, of_ssl_object, ssl_context

if TYPE_CHECKING:
    from sqlalchemy import URL


_AUTHORITIES: Final = frozenset({"sslrootcert", "ssl_ca"})
_TAKEN_OUT: Final = _AUTHORITIES | {"connect_timeout"}
"""Query keys that never reach pg8000."""


def codes(error: BaseException) -> list[Code]:
    """Return the SQLSTATE of an error, whose argument is the server's message by its fields."""
    message: object = error.args[0] if error.args else None
    code: object = (
        cast("dict[str, object]", message).get("C") if isinstance(message, dict) else None
    )
    return [code] if isinstance(code, str) else []


def query_keys(_url: URL, dbapi: Any) -> frozenset[str]:
    """Return the arguments of ``connect``, less those that no URL can give."""
    known = inspect.signature(dbapi.connect).parameters
    return frozenset(known) - {"ssl_context", "sock", "startup_params"} | _TAKEN_OUT


def connect(opened: Connect, arguments: Arguments, keywords: Keywords) -> Any:
    """Open a connection; its ``timeout`` would go on to limit each wait for an answer."""
    given = dict(keywords)
    for name in _AUTHORITIES:
        given.pop(name, None)  # they are in the context
    limit = given.pop("connect_timeout", given.pop("timeout", None))
    if limit is None:
        return opened(*arguments, **given)
    connection = opened(*arguments, **given, timeout=float(str(limit)))
    connection._usock.settimeout(None)  # noqa: SLF001 - no public name
    return connection


def startup_options(options: str) -> dict[str, object]:
    """Return the arguments of ``connect`` for options of the server's process."""
    return {"startup_params": {"options": options}}


def tls_arguments(url: URL, is_verified: bool) -> dict[str, object]:  # noqa: FBT001 - as Driver's
    """Return the argument of ``connect`` for encryption."""
    return {"ssl_context": ssl_context(url, is_verified=is_verified)}


def encryption(handle: Any) -> Encryption:
    """Look at a connection's own encryption."""
    return of_ssl_object(handle._usock)  # noqa: SLF001 - no public name


def descriptor(handle: Any) -> int:
    """Return the descriptor of the socket; ``_sock`` is a buffered file around it, without one."""
    return int(handle._usock.fileno())  # noqa: SLF001 - no public name


def process_id(handle: Any) -> int | None:
    """Return the number of the server's process, as of its greeting."""
    data: bytes | None = handle._backend_key_data  # noqa: SLF001 - no public name
    return None if data is None else int(struct.unpack("!i", data[:4])[0])


def send(handle: Any, statements: str) -> int:
    """Send SQL as one message in no transaction, unprepared; return the rows of a SELECT."""
    return int(handle.execute_simple(statements).row_count)


def is_in_c(_handle: Any) -> bool:
    """Return ``False``: there is no C code."""
    return False


# It uses unnamed prepared statements, parsed in each message, which no pooler mixes up. Its own
# way to end a read-only setting is a COMMIT of its own: left to SQLAlchemy.
DRIVER: Final = Driver(
    name="pg8000",
    install="pg8000",
    code_table="postgresql",
    codes=codes,
    connect_errors=frozenset({"InterfaceError"}),
    connect_timeout=ConnectTimeout("timeout", is_whole=False),
    startup_options=startup_options,
    tls_arguments=tls_arguments,
    encryption=encryption,
    query_keys=query_keys,
    connect=connect,
    least_scram_rounds=4096,  # as RFC 5802 has it; other drivers take any number
    process_id=process_id,
    send=send,
    descriptor=descriptor,
    is_in_c=is_in_c,
    read_only_autocommit="setting",
)
