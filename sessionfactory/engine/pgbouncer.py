"""Poolers between us and PostgreSQL, such as PgBouncer: recognised, and the driver set accordingly.

A pooler in transaction mode gives each transaction another connection to the server. A statement
that a driver prepared on one is not there on the next, or is another client's of the same name:
then psycopg reads wrong rows without an error. The pooler shows when a connection is opened, for
the process that the server named in its greeting is not the one that answers.
"""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Final

from sessionfactory.drivers import connections, families, known
from sessionfactory.errors import Fault, SettingsError
from sessionfactory.pool.waiting import TookLongerError
from sessionfactory.pool_errors import ConnectTimeoutError

if TYPE_CHECKING:
    from sqlalchemy import Dialect
    from sqlalchemy.engine.interfaces import DBAPIConnection

    from sessionfactory.config.settings import DatabaseSettings
    from sessionfactory.drivers.sqlalchemy_private import Connect
    from sessionfactory.pool.waiting import Waiting


def recognising(
    dialect: Dialect, settings: DatabaseSettings, waiting: Waiting, connect: Connect
) -> Connect:
    """Return a way to connect that looks for a pooler, until it has found one.

    The look takes a round trip for each connection, and ``connect_timeout`` at most. The first
    connection that leads to a pooler is closed and opened again with other arguments. What the user
    wrote about prepared statements wins.

    Connecting raises ``SettingsError`` behind a pooler if ``pool.reset`` is ``"state"``.
    """
    safely = known.named(dialect.driver).prepares_nothing
    refused = settings.pool.reset == "state"
    if not families.of_dialect(dialect).speaks_postgresql or not (safely or refused):
        return connect
    is_found = False

    def connect_safely(*arguments: object, **keywords: object) -> DBAPIConnection:
        nonlocal is_found
        if not is_found:  # another thread may find it while this one connects
            connection = connect(*arguments, **keywords)
            if _is_direct(dialect, connection, settings.connect_timeout, waiting):
                return connection
            dialect.do_close(connection)
            if refused:
                raise SettingsError([Fault("pool.reset", _WHY)])
            is_found = True
        return connect(*arguments, **{**safely, **keywords})

    return connect_safely


_WHY: Final = (
    'a pooler, such as PgBouncer, stands before this server, and "state" would clear a connection'
    " that it has given to somebody else; leave the default"
)


def _is_direct(
    dialect: Dialect, connection: DBAPIConnection, seconds: float | None, waiting: Waiting
) -> bool:
    # A condition, because asyncpg returns no rows of what it does not prepare.
    backend = connections.backend_of(connection)
    asked = f"SELECT 1 WHERE pg_catalog.pg_backend_pid() = {backend}"
    hang_up = partial(connections.hang_up, connection)
    try:
        with nullcontext() if seconds is None else waiting.alarm(seconds, hang_up):
            return connections.send(connection, asked) == 1
    except BaseException as error:  # cancelled, perhaps
        dialect.do_terminate(connection)
        if isinstance(error, TookLongerError):
            problem = f"The server did not answer a new connection within {seconds:g} s"
            raise ConnectTimeoutError(f"{problem}; see connect_timeout") from None
        raise
