"""Settings of PostgreSQL that hold for one transaction: all of them in one statement."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import text

from sessionfactory.config.values import milliseconds
from sessionfactory.drivers import connections

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sqlalchemy import Connection

    from sessionfactory.engine.views.options import TransactionOptions

_TIMEOUTS: Final = ("statement_timeout", "lock_timeout")


def settings_of(options: TransactionOptions) -> dict[str, str]:
    """Return what a transaction has to be told after its BEGIN, by name."""
    limits = ((name, getattr(options, name)) for name in _TIMEOUTS)
    timeouts = {name: str(milliseconds(limit)) for name, limit in limits if limit is not None}
    return {**(options.local or {}), **timeouts}


def opening(settings: Mapping[str, str]) -> tuple[str, list[str]]:
    """Return the statement that follows a BEGIN, with ``$1`` for the first of its parameters.

    As data, so that it can travel with the BEGIN and the first statement: see ``say``.
    """
    calls = [f"pg_catalog.set_config(${n}, ${n + 1}, true)" for n in range(1, 2 * len(settings), 2)]
    return f"SELECT {', '.join(calls)}", [part for item in settings.items() for part in item]


def say(connection: Connection, settings: Mapping[str, str]) -> None:
    """Tell a transaction that has just begun; on a connection that can, together with its BEGIN."""
    statement, parameters = opening(settings)
    driver = connection.connection.dbapi_connection
    if driver is not None and connections.send_along(driver, statement, parameters):
        return
    bound = {f"p{n}": value for n, value in enumerate(parameters, 1)}
    connection.execute(text(statement.replace("$", ":p")), bound)


def current(connection: Connection, settings: Iterable[str]) -> dict[str, str]:
    """Return what settings are now; one that nobody made is empty, as it is after a transaction."""
    names = [*settings]
    columns = ", ".join(f"pg_catalog.current_setting(:p{n}, true)" for n in range(len(names)))
    bound = {f"p{n}": name for n, name in enumerate(names)}
    values = connection.execute(text(f"SELECT {columns}"), bound).one()
    return {name: value or "" for name, value in zip(names, values, strict=True)}
