"""MySQL Connector/Python, for the sync half, in its Python and its C form."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from sessionfactory.drivers import libpq
from sessionfactory.drivers.driver import ConnectTimeout, Driver
from sessionfactory.drivers.transport.encryption import (
    Encryption,
    of_ssl_object,
    system_authorities,
)

if TYPE_CHECKING:
    from sqlalchemy import URL


def process_id(handle: Any) -> int:
    """Return the server's number for its end of a connection."""
    return int(handle.connection_id)


def descriptor(handle: Any) -> int | None:
    """Return the descriptor of the socket; the C form shows none."""
    line = getattr(handle, "_socket", None)
    return None if line is None else int(line.sock.fileno())


def query_keys(_url: URL, _dbapi: Any) -> frozenset[str]:
    """Return the keys of its configuration, and those of its pools and option files."""
    constants: Any = import_module("mysql.connector.constants")
    pooling: Any = import_module("mysql.connector.pooling")
    others = {"client_flag", "failover", "option_files", "option_groups", "allow_local_infile"}
    return frozenset(constants.DEFAULT_CONFIGURATION) | frozenset(pooling.CNX_POOL_ARGS) | others


def tls_arguments(url: URL, is_verified: bool) -> dict[str, object]:  # noqa: FBT001 - as Driver's
    """Return the arguments of ``connect`` for encryption.

    It goes on in plaintext where the server has no TLS: see ``tls.refuse_plaintext``.
    """
    arguments: dict[str, object] = {"ssl_disabled": False}
    if is_verified:
        ca = url.query.get("ssl_ca") or url.query.get("sslrootcert") or system_authorities()
        arguments |= {"ssl_verify_cert": True, "ssl_verify_identity": True, "ssl_ca": ca}
    return arguments


def encryption(handle: Any) -> Encryption:
    """Look at a connection's own encryption; the C form shows it in the server's status only."""
    line = getattr(handle, "_socket", None)
    if line is not None:
        return of_ssl_object(line.sock)
    cursor = handle.cursor()
    cursor.execute("SHOW SESSION STATUS LIKE 'Ssl_cipher'")
    row = cursor.fetchone()
    cursor.close()
    return Encryption(is_on=bool(row and row[1]))


def is_in_c(handle: Any) -> bool:
    """Return whether it is the C form, which waits with the interpreter's lock released."""
    return any(kind.__module__.endswith("cext") for kind in type(handle).__mro__)


DRIVER: Final = Driver(
    name="mysqlconnector",
    install="mysql-connector-python",
    code_table="mysql",
    codes=libpq.code_in("errno"),
    connect_timeout=ConnectTimeout("connection_timeout", least=1),
    query_keys=query_keys,
    tls_arguments=tls_arguments,
    encryption=encryption,
    process_id=process_id,
    descriptor=descriptor,
    is_in_c=is_in_c,
)
