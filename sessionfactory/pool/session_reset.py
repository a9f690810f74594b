"""A connection forgets what its former session left on it, before the next one gets it.

A rollback does not undo all: settings and roles that were committed, temporary tables, advisory
locks, subscriptions and cursors stay, so that the search path or the role of one tenant would serve
the next. What clears them asks the server for a sign of life as well, so that it takes the place of
the ping, and not a round trip more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sessionfactory.drivers import connections, families, known
from sessionfactory.errors import Fault, SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import URL, Engine
    from sqlalchemy.engine.interfaces import DBAPIConnection

# What Npgsql sends, and RESET ROLE: a role of the start-up options is not the session's to lose.
# DISCARD ALL would also drop prepared statements, of which the drivers think that they are there.
_CLEAR: Final = (
    "SET SESSION AUTHORIZATION DEFAULT; RESET ROLE; RESET ALL; CLOSE ALL; UNLISTEN *;"
    " SELECT pg_catalog.pg_advisory_unlock_all(); DISCARD SEQUENCES; DISCARD TEMP"
)


def refuse_other_databases(url: URL) -> None:
    """Refuse to promise a clean state where there is no way to it.

    Raises:
        SettingsError: this is not PostgreSQL, or not one of the drivers that can do it.
    """
    backend, driver = url.get_backend_name(), url.get_driver_name()
    if not families.of_url(url).is_postgresql:
        why = f'on {backend}, no driver can clear a connection; "state" is for PostgreSQL'
    elif not known.named(driver).clears_state:
        able = ", ".join(sorted(known.names(lambda one: one.clears_state)))
        why = f'{driver} is not known to do it; for "state", use {able}'
    else:
        return
    raise SettingsError([Fault("pool.reset", f"{why}; leave the default")])


def clearing(engine: Engine) -> Callable[[DBAPIConnection], object]:
    """Return what clears a connection of an engine, in one round trip; prepared statements stay."""
    repeated = known.named(engine.dialect.driver).sets_on_connect
    statement = f"{_CLEAR}; {repeated}" if repeated else _CLEAR
    return lambda connection: connections.send(connection, statement)
