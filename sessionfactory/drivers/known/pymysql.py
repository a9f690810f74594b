"""PyMySQL, for the sync half."""

from __future__ import annotations

from typing import Any, Final

from sessionfactory.drivers import pymysql_like
from sessionfactory.drivers.driver import Driver
from sessionfactory.drivers.encryption import Encryption, of_ssl_object


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
    tls_arguments=pymysql_like.tls_arguments,
    encryption=encryption,
    process_id=pymysql_like.thread_id,
    descriptor=descriptor,
    is_in_c=is_in_c,
)
