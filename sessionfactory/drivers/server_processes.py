"""The server's end of a connection, which goes on when ours is closed: ended by another connection.

A server that is in the midst of a statement does not notice that nobody waits for it any more. So
whoever cuts a connection tells the server, as an administrator would.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from sessionfactory.drivers import connections, sqlalchemy_private

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sqlalchemy import Engine
    from sqlalchemy.engine.interfaces import DBAPIConnection

_PATIENCE: Final = 5.0
"""Seconds after which a server process that does not end is left."""
_AGAIN: Final = 0.01
"""Seconds between two looks at it."""


def end(engine: Engine, numbers: Iterable[int | None], pause: Callable[[float], object]) -> None:
    """End what the server does for connections, and wait until it has. It may fail, in silence.

    It opens a connection as the engine does, which a silent network may hold for long.

    Args:
        engine: opened those connections.
        numbers: what ``connections.backend_of`` says of them.
        pause: waits for so many seconds.
    """
    step = _STEPS.get(engine.dialect.name)
    known = ", ".join(str(number) for number in numbers if number is not None)
    if step is None or not known:
        return
    deadline = time.monotonic() + _PATIENCE
    with suppress(Exception):  # there is no way to the server: then nobody can tell it
        connection = sqlalchemy_private.open_apart(engine.pool)
        try:
            while step(connection, known) and time.monotonic() < deadline:
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
        with suppress(Exception):  # it ended this very moment
            cursor.execute(f"KILL {number}")
    cursor.close()
    return bool(found)


_STEPS: Final = {
    "postgresql": _end_on_postgresql,
    "mysql": _end_on_mysql,
    "mariadb": _end_on_mysql,
}
"""By dialect: ends what is left, and says whether there was something."""
