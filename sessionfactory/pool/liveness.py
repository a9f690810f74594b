"""Whether a connection still lives is looked at, and asked if need be, before it is used.

A server that went away leaves a trace on the socket: the end of the stream, a reset, a last notice.
To look for it costs no round trip. A network that fell silent leaves none, so that a connection
which was idle for a while is asked; within a time limit, for it may not answer.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Final, cast

from sqlalchemy import event

from sessionfactory.clock import monotonic
from sessionfactory.drivers import connections
from sessionfactory.pool import connection_settings, session_reset
from sessionfactory.pool.pool_entry import deadline_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Engine
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import ConnectionPoolEntry
    from sqlalchemy.pool.base import _ConnectionRecord

    from sessionfactory.config.settings import PoolSettings
    from sessionfactory.pool.waiting import Waiting

RETURNED: Final = "sessionfactory_returned"
"""Since when a connection rests, on the monotonic clock: a key of what its pool's entry notes."""
_HEARD: Final = "sessionfactory_heard"


class Liveness:
    """Looks at connections before they are given out; pings those that rested for a while.

    With ``pool.reset="state"``, clears them instead: that is a ping, too. Thread-safe.

    Args:
        engine: whose connections they are.
        pool: the settings.
        waiting: how this half waits.
    """

    def __init__(self, engine: Engine, pool: PoolSettings, waiting: Waiting) -> None:
        self._clears = pool.reset == "state"
        self._ask = session_reset.clearing(engine) if self._clears else engine.dialect.do_ping
        self._ping_after = -math.inf if self._clears else pool.ping_after
        self._ping_timeout = pool.ping_timeout
        self._waiting = waiting
        event.listen(engine, "connect", _learn_to_look)

    def vouches_for(self, record: ConnectionPoolEntry) -> bool:
        """Say whether a connection can be used; one that does not answer is hung up."""
        info = record.info
        returned: float | None = info.get(RETURNED)
        if returned is None or record.dbapi_connection is None:  # it is new, or will be
            return True
        heard: Callable[[], object] = info[_HEARD]
        if monotonic() - returned < self._ping_after and not heard():
            return True
        # One that is due, or suspected with others, is replaced now, and not asked before.
        connection = cast("_ConnectionRecord", record).get_connection()
        return RETURNED not in info or self._answers(connection, record)

    def _answers(self, connection: DBAPIConnection, record: ConnectionPoolEntry) -> bool:
        if self._clears:  # what a view left on it goes as well
            connection_settings.forget(record.info)
        deadline = deadline_of(record)
        left = math.inf if deadline is None else max(0.0, deadline - monotonic())
        hang_up = partial(connections.hang_up, connection)
        try:
            with self._waiting.alarm(min(self._ping_timeout, left), hang_up):
                self._ask(connection)
        except Exception:  # noqa: BLE001 - whatever it says, it is not usable
            return False
        return True


def _learn_to_look(connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:
    record.info[_HEARD] = connections.listener(connection)
