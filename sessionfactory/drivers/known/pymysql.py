"""PyMySQL, for the sync half."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sessionfactory.drivers import pymysql_like
from sessionfactory.drivers.driver import Arguments, Connect, Driver, Keywords
from sessionfactory.drivers.transport.encryption import Encryption, of_ssl_object

if TYPE_CHECKING:
    from sqlalchemy import URL


def query_keys(_url: URL, dbapi: Any) -> frozenset[str]:
    """Return the arguments of ``connect``, and those of which SQLAlchemy makes its ``ssl``."""
    return pymysql_like.query_keys(dbapi.connect)


def connect(opened: Connect, arguments: Arguments, keywords: Keywords) -> Any:
    """Open a connection; the driver's own limit does not cover the server's greeting."""
    limit = keywords.get("connect_timeout")
    if not limit or "read_timeout" in keywords:
        return opened(*arguments, **keywords)
    connection = opened(*arguments, **keywords, read_timeout=limit)
    connection._read_timeout = None  # noqa: SLF001 - no public name; it limits each later wait, too
    return connection


def descriptor(handle: Any) -> int:
    """Return the descriptor of a connection's socket."""
    return int(handle._sock.fileno())  # noqa: SLF001 - no public name


def encryption(handle: Any) -> Encryption:
    """Look at a connection's own encryption."""
    return of_ssl_object(handle._sock)  # noqa: SLF001 - no public name


def is_in_c(_handle: Any) -> bool:
    """Return ``False``: there is no C code."""
    return False


DRIVER: Final = Driver(
    name="pymysql",
    install='"sessionfactory[mysql]"',
    code_table="mysql",
    codes=pymysql_like.number,
    connect_timeout=pymysql_like.CONNECT_TIMEOUT,
    query_keys=query_keys,
    connect=connect,
    tls_arguments=pymysql_like.tls_arguments,
    encryption=encryption,
    process_id=pymysql_like.thread_id,
    descriptor=descriptor,
    is_in_c=is_in_c,
)
