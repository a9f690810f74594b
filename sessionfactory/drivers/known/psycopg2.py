"""psycopg2, for the sync half."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sessionfactory.drivers import libpq
from sessionfactory.drivers.driver import ConnectTimeout, Driver
from sessionfactory.drivers.transport.encryption import Encryption

if TYPE_CHECKING:
    from sqlalchemy import URL


def query_keys(url: URL, dbapi: Any) -> frozenset[str]:
    """Return those keys of a URL's query that this libpq takes, which it does not list."""
    taken = {"connection_factory", "cursor_factory", "async_", "dsn"}
    for key in url.query:
        try:
            dbapi.extensions.parse_dsn(f"{key}=''")
        except dbapi.Error:
            continue
        taken.add(key)
    return frozenset(taken)


def process_id(handle: Any) -> int:
    """Return the number of the server's process, as of its greeting."""
    return int(handle.info.backend_pid)


def send(handle: Any, statements: str) -> int:
    """Send SQL as one message in no transaction; return the rows of a SELECT."""
    before = handle.autocommit
    handle.autocommit = True
    cursor = handle.cursor()
    cursor.execute(statements)
    rows = int(cursor.rowcount)
    cursor.close()
    handle.autocommit = before
    return rows


def is_in_c(_handle: Any) -> bool:
    """Return ``False``: psycopg2 has a lock of its own around its C code."""
    return False


def encryption(handle: Any) -> Encryption:
    """Look at a connection's own encryption."""
    is_verified = handle.info.dsn_parameters.get("sslmode") == "verify-full"
    return Encryption(is_on=bool(handle.info.ssl_in_use), is_verified=is_verified)


# Its ``cancel()`` connects anew with the interpreter's lock held: on a silent network, no thread of
# this process would run again. So it counts as a driver that cannot cancel.
DRIVER: Final = Driver(
    name="psycopg2",
    install="psycopg2-binary",
    code_table="postgresql",
    codes=libpq.code_in("pgcode"),
    connect_timeout=ConnectTimeout("connect_timeout", least=2),
    has_libpq_defaults=True,
    startup_options=libpq.startup_options,
    query_keys=query_keys,
    takes_several_hosts=True,
    tls_arguments=libpq.tls_arguments,
    encryption=encryption,
    process_id=process_id,
    send=send,
    has_failed_transaction=libpq.has_failed_transaction,
    is_in_c=is_in_c,
    has_read_only_switch=True,
    read_only_autocommit="attribute",
    clears_state=True,
    sets_on_connect="SET datestyle TO 'ISO'",
)
