"""Pools of real connections, each to a SQLite of its own, of which it is known which are open."""

from __future__ import annotations

import sqlite3
import threading
from typing import TYPE_CHECKING, cast

from sessionfactory.pool.pool_entry import PoolEntry

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import PoolProxiedConnection
    from sqlalchemy.pool.base import _ConnectionFairy


class CountedConnection(sqlite3.Connection):
    """A connection that says when it is closed."""

    on_close: Callable[[CountedConnection], None]

    def close(self) -> None:
        self.on_close(self)
        super().close()


class Databases:
    """Opens connections, and knows which are open."""

    def __init__(self) -> None:
        self.open: dict[object, None] = {}
        self.opened = 0
        self.most = 0
        self.error: Exception | None = None
        """Raised instead of opening another one."""

    def connect(self) -> DBAPIConnection:
        """Open a connection; the ``creator`` of a pool."""
        if self.error is not None:
            raise self.error
        connection = sqlite3.connect(":memory:", check_same_thread=False, factory=CountedConnection)
        connection.on_close = lambda closed: self.open.pop(closed, None)
        self.open[connection] = None
        self.opened += 1
        self.most = max(self.most, len(self.open))
        return cast("DBAPIConnection", connection)

    def close(self) -> None:
        """Close what is open."""
        for connection in tuple(self.open):
            cast("CountedConnection", connection).close()


def record_of(connection: PoolProxiedConnection) -> PoolEntry:
    """Return the pool's entry of a connection that is out."""
    found = cast("_ConnectionFairy", connection)._connection_record
    assert isinstance(found, PoolEntry)
    return found


class Caller:
    """A thread that runs something, and keeps what came of it."""

    def __init__(self, work: Callable[[], object]) -> None:
        self.error: BaseException | None = None
        self.result: object = None
        self._work = work
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.result = self._work()
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            self.error = error

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        return not self._thread.is_alive()

    def join(self) -> None:
        """Wait for its end; raise what it raised."""
        self._thread.join(20)
        assert self.done
        if self.error is not None:
            raise self.error


def until(condition: Callable[[], bool]) -> None:
    """Look until something is so."""
    tick = threading.Event()
    for _ in range(20_000):
        if condition():
            return
        tick.wait(0.0005)
    raise AssertionError("it never came to be")
