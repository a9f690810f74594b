"""Poolers between us and PostgreSQL, such as PgBouncer: recognised, and the driver set accordingly.

A pooler in transaction mode gives each transaction another connection to the server. A statement
that a driver prepared on one is not there on the next, or is another client's of the same name:
then psycopg reads wrong rows without an error. The pooler shows when a connection is opened, for
the process that the server named in its greeting is not the one that answers.
"""

from __future__ import annotations

import warnings
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Final

from sessionfactory.drivers import connections, families, known
from sessionfactory.engine import creators, timeouts
from sessionfactory.errors import Fault, SettingsError, SettingsWarning
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

    Connecting raises ``SettingsError`` behind a pooler if ``pool.reset`` is ``"state"``, or if the
    pooler ignores the time limits of the settings.
    """
    driver = known.named(dialect.driver)
    safely = driver.prepares_nothing
    refused = settings.pool.reset == "state"
    limits = timeouts.postgresql_settings(settings)
    if not families.of_dialect(dialect).speaks_postgresql or driver.send is None:
        return connect
    if not (safely or refused or limits):
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
            connection = connect(*arguments, **{**safely, **keywords})
            ignored = [name for name in limits if not _holds(dialect, connection, name)]
            if ignored:
                dialect.do_terminate(connection)
                raise SettingsError([Fault(_SETTING.get(name, name), _IGNORED) for name in ignored])
            if creators.of_settings(settings) is not None and safely:
                warnings.warn(_BY_FUNCTION.format(", ".join(safely)), SettingsWarning, stacklevel=2)
            is_found = True
            return connection
        return connect(*arguments, **{**safely, **keywords})

    return connect_safely


_WHY: Final = (
    'a pooler, such as PgBouncer, stands before this server, and "state" would clear a connection'
    " that it has given to somebody else; leave the default"
)


_IGNORED: Final = (
    "a pooler, such as PgBouncer, stands before this server and ignores start-up parameters, so"
    " that the limit would not hold; set it for the role on the server (ALTER ROLE … SET …), or for"
    " transactions by with_options, and leave it away here"
)
_SETTING: Final = {"idle_in_transaction_session_timeout": "idle_in_transaction_timeout"}
"""Names of ours for PostgreSQL's."""
_BY_FUNCTION: Final = (
    "A pooler, such as PgBouncer, stands before the server of a creator function; its connections"
    " must not use prepared statements: give {} in the function"
)


def _holds(dialect: Dialect, connection: DBAPIConnection, name: str) -> bool:
    """Return whether a time limit is in force on a connection."""
    asked = f"SELECT 1 FROM pg_catalog.pg_settings WHERE name = '{name}' AND setting <> '0'"  # noqa: S608 - a name of ours
    try:
        return connections.send(connection, asked) == 1
    except BaseException:
        dialect.do_terminate(connection)
        raise


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
