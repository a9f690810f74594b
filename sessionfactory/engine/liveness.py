"""Whether a connection still lives is looked at, and asked if need be, before it is used.

A server that went away leaves a trace on the socket: the end of the stream, a reset, a last notice.
To look for it costs no round trip. A network that fell silent leaves none, so that a connection
which was idle for a while is asked; within a time limit, for it may not answer.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Final

from sqlalchemy import event
from sqlalchemy.exc import InvalidatePoolError

from sessionfactory.engine import connections, standing, state
from sessionfactory.engine.records import deadline_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Engine
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import ConnectionPoolEntry

    from sessionfactory.engine.waiting import Waiting
    from sessionfactory.settings import PoolSettings

_RETURNED: Final = "sessionfactory_returned"
_HEARD: Final = "sessionfactory_heard"


def check(engine: Engine, pool: PoolSettings, waiting: Waiting) -> None:
    """Look at a connection at each checkout; ping it if there is something, or after a while.

    With ``pool.reset="state"``, clear it at each checkout instead: that is a ping, too. One that
    does not answer is replaced, and so are all others that were opened before: what broke it, a
    restart or a fail-over, most likely broke them too.
    """
    clears = pool.reset == "state"
    ask = state.clearing(engine) if clears else engine.dialect.do_ping

    @event.listens_for(engine, "connect")
    def learn_to_look(connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:
        record.info[_HEARD] = connections.listener(connection)

    @event.listens_for(engine, "checkin")
    def note_return(_connection: DBAPIConnection | None, record: ConnectionPoolEntry) -> None:
        record.info[_RETURNED] = time.monotonic()

    @event.listens_for(engine, "checkout")
    def look(connection: DBAPIConnection, record: ConnectionPoolEntry, _proxy: object) -> None:
        info = record.info
        returned = info.pop(_RETURNED, None)
        if returned is None:  # it is new
            return
        heard: Callable[[], bool] = info[_HEARD]
        if clears or heard() or time.monotonic() - returned >= pool.ping_after:
            deadline = deadline_of(record)
            if clears:  # what a view left on it goes as well
                standing.forget(info)
            left = math.inf if deadline is None else max(0.0, deadline - time.monotonic())
            _ask(ask, connection, min(pool.ping_timeout, left), waiting)


def _ask(
    ask: Callable[[DBAPIConnection], object],
    connection: DBAPIConnection,
    timeout: float,
    waiting: Waiting,
) -> None:
    """Ask something of a connection, and hang it up if it does not answer in time: that ends it."""
    try:
        with waiting.alarm(timeout, lambda: connections.hang_up(connection)):
            ask(connection)
    except Exception as error:
        raise InvalidatePoolError from error
