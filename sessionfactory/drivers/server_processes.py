"""The server's end of a connection, which goes on when ours is closed: ended by another connection.

A server that executes a statement does not notice that its client is gone. So the connection is
terminated on the server as well, as an administrator would do it.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final

from sessionfactory.clock import monotonic
from sessionfactory.drivers import connections, families, sqlalchemy_private

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sqlalchemy import Engine
    from sqlalchemy.engine.interfaces import DBAPIConnection

    from sessionfactory.drivers.families import Family

_PATIENCE: Final = 5.0
"""Seconds after which a server process that does not end is left."""
_AGAIN: Final = 0.01
"""Seconds between two looks at it."""


def end(engine: Engine, numbers: Iterable[int | None], pause: Callable[[float], object]) -> None:
    """End what the server does for connections, and wait until it has. It may fail, in silence.

    It opens a connection as the engine does, which a silent network may hold for long.

    Args:
        engine: opened those connections.
        numbers: what ``connections.backend_of`` returned for them.
        pause: waits for so many seconds.
    """
    step = _step_for(families.of_dialect(engine.dialect))
    known = ", ".join(str(number) for number in numbers if number is not None)
    if step is None or not known:
        return
    deadline = monotonic() + _PATIENCE
    with suppress(Exception):  # the server cannot be reached
        connection = sqlalchemy_private.open_apart(engine.pool)
        try:
            while step(connection, known) and monotonic() < deadline:
                pause(_AGAIN)
        finally:
            connection.close()


def _end_on_postgresql(connection: DBAPIConnection, numbers: str) -> bool:
    # Behind a pooler, numbers are the pooler's, and may be those of strangers' on the server: so
    # only if this connection has on the server the number that it believes to have.
    ending = (
        "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity"  # noqa: S608 - numbers
        f" WHERE pid IN ({numbers}) AND usename = session_user"
        f" AND pg_catalog.pg_backend_pid() = {connections.backend_of(connection)}"
    )
    return connections.send(connection, ending) > 0


def _end_on_mysql(connection: DBAPIConnection, numbers: str) -> bool:
    cursor = connection.cursor()
    cursor.execute(
        f"SELECT id FROM information_schema.processlist WHERE id IN ({numbers})"  # noqa: S608 - numbers
        f" AND connection_id() = {connections.backend_of(connection)}"  # as above
    )
    found = [int(row[0]) for row in cursor.fetchall()]
    for number in found:
        with suppress(Exception):  # it has just ended
            cursor.execute(f"KILL {number}")
    cursor.close()
    return bool(found)


def _step_for(family: Family) -> Callable[[DBAPIConnection, str], bool] | None:
    """Return what ends the connections that are left, and returns whether there were any."""
    if family.is_postgresql:
        return _end_on_postgresql
    return _end_on_mysql if family.speaks_mysql else None
