"""mysqlclient, whose module is MySQLdb, for the sync half."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sessionfactory.drivers import pymysql_like
from sessionfactory.drivers.driver import Driver
from sessionfactory.drivers.transport.encryption import Encryption

if TYPE_CHECKING:
    from sqlalchemy import URL


def tls_arguments(_url: URL, is_verified: bool) -> dict[str, object]:  # noqa: FBT001 - as Driver's
    """Return the argument of ``connect`` for encryption."""
    return {"ssl_mode": "VERIFY_IDENTITY" if is_verified else "REQUIRED"}


def encryption(handle: Any) -> Encryption:
    """Read the connection's cipher, which only the server's status variables show."""
    cursor = handle.cursor()
    cursor.execute("SHOW SESSION STATUS LIKE 'Ssl_cipher'")
    row = cursor.fetchone()
    cursor.close()
    return Encryption(is_on=bool(row and row[1]))


def is_in_c(_handle: Any) -> bool:
    """Return ``True``: it waits without the interpreter's lock, and has no lock of its own."""
    return True


DRIVER: Final = Driver(
    name="mysqldb",
    install='"sessionfactory[mysql]"',
    code_table="mysql",
    codes=pymysql_like.number,
    connect_timeout=pymysql_like.CONNECT_TIMEOUT,
    tls_arguments=tls_arguments,
    encryption=encryption,
    process_id=pymysql_like.thread_id,
    is_in_c=is_in_c,
)
