"""A sign of life is asked of a connection that was idle, before it is used."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from sqlalchemy import event
from sqlalchemy.exc import InvalidatePoolError

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import ConnectionPoolEntry

_RETURNED: Final = "sessionfactory_returned"


def ping_idle(engine: Engine, after: float) -> None:
    """Ping a connection at checkout if it was idle for ``after`` seconds or more.

    One that does not answer is replaced, and so are all others that were opened before: what
    broke it, a restart or a fail-over, most likely broke them too.
    """

    @event.listens_for(engine, "checkin")
    def note_return(_connection: DBAPIConnection | None, record: ConnectionPoolEntry) -> None:
        record.info[_RETURNED] = time.monotonic()

    @event.listens_for(engine, "checkout")
    def ping(connection: DBAPIConnection, record: ConnectionPoolEntry, _proxy: object) -> None:
        returned = record.info.pop(_RETURNED, None)
        if returned is None or time.monotonic() - returned < after:
            return
        try:
            engine.dialect.do_ping(connection)
        except engine.dialect.loaded_dbapi.Error as error:
            raise InvalidatePoolError from error
