"""When a transaction of SQLite begins, and how.

The standard library's driver begins no transaction before a SELECT, so that two read-modify-writes
lose an update without an error. Here a BEGIN of ours is sent, together with the first statement
that needs a transaction. PRAGMA, VACUUM, ATTACH and DETACH need none, and work as with SQLite
itself.

``begin()`` means "may write": it begins as ``sqlite.begin`` says, IMMEDIATE by default. What
``engine.connect()`` begins by itself is DEFERRED, as are the sessions of ``factory()`` and readers:
they take no lock before they write.

Methods of the dialect and of ``Connection`` are overridden for it. A listener to ``begin`` comes
too early, and makes every connection look for listeners at each statement: a quarter of a small
transaction's time.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, cast

from sqlalchemy import Connection, event
from sqlalchemy.util.concurrency import await_only

from sessionfactory.drivers import sqlalchemy_private

if TYPE_CHECKING:
    import sqlite3

    from sqlalchemy import Dialect, Engine, RootTransaction
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

_LEADING_COMMENTS: Final = r"\s*(?:--[^\n]*\n\s*|/\*.*?\*/\s*)*"
_ALONE: Final = re.compile(
    _LEADING_COMMENTS + r"(?:PRAGMA|VACUUM|ATTACH|DETACH|BEGIN|COMMIT|END|ROLLBACK)\b",
    re.IGNORECASE | re.DOTALL,
)
"""Statements that SQLite runs outside of transactions, or that begin and end them."""
_SETTING: Final = re.compile(
    _LEADING_COMMENTS + r"PRAGMA\s+(?:\w+\s*\.\s*)?"
    r"(?:foreign_keys|synchronous|busy_timeout|query_only)\s*[=(]",
    re.IGNORECASE | re.DOTALL,
)
"""Changes of what every connection is set up with."""

_CHANGED: Final = "sessionfactory_pragmas_changed"
_READS: Final = "sessionfactory_query_only"
_UNDOES: Final = "sessionfactory_undoes_pragmas"
_PRAGMAS: Final = "sessionfactory_pragmas"


class _ExplicitConnection(Connection):
    """A connection that knows whether its transaction was begun by ``begin()``."""

    may_write = False

    def begin(self) -> RootTransaction:
        self.may_write = True
        return super().begin()

    def _autobegin(self) -> None:  # a private name: see ``sqlalchemy_private``
        super()._autobegin()
        self.may_write = False


def begin_by_need(engine: Engine, how: str, pragmas: tuple[str, ...]) -> None:
    """Make the transactions of an engine begin with the first statement that needs one.

    Args:
        engine: the engine.
        how: ``"immediate"``, ``"exclusive"`` or ``"deferred"``, after ``begin()``.
        pragmas: what every connection is set up with; what a session changes of it is undone when
            the connection returns to the pool.
    """
    vars(engine.dialect)[_PRAGMAS] = pragmas
    engine.dialect = _beginning(engine.dialect, how)
    sqlalchemy_private.connect_as(engine, _ExplicitConnection)


def defer(view: Engine) -> None:
    """Make the transactions of a view take no lock before they write."""
    view.dialect = _beginning(view.dialect, "deferred")


def read_only(view: Engine) -> None:
    """Make the transactions of a view refuse to write."""
    view.dialect = _beginning(view.dialect, "deferred", reads=True)


def run(connection: DBAPIConnection | sqlite3.Connection, *statements: str) -> None:
    """Run statements on a driver's connection."""
    driver = getattr(connection, "driver_connection", None)
    if driver is not None:  # aiosqlite: all at once, for each call waits for another thread
        await_only(driver.executescript("; ".join(statements)))
    else:
        cursor = connection.cursor()
        for statement in statements:
            cursor.execute(statement)
        cursor.close()


def _beginning(dialect: Dialect, how: str, *, reads: bool = False) -> Dialect:
    """Return the same dialect with another BEGIN.

    The dialects share their state, which the first connection fills in.
    """

    class Beginning(type(dialect)):  # type: ignore[misc]  # a class is known when it is made
        supports_statement_cache = True

        def do_execute(
            self, cursor: Any, statement: str, parameters: Any, context: Any = None
        ) -> None:
            _begin(cursor, statement, context, how)
            cursor.execute(statement, parameters)

        def do_execute_no_params(self, cursor: Any, statement: str, context: Any = None) -> None:
            _begin(cursor, statement, context, how)
            cursor.execute(statement)

        def do_executemany(
            self, cursor: Any, statement: str, parameters: Any, context: Any = None
        ) -> None:
            _begin(cursor, statement, context, how)
            cursor.executemany(statement, parameters)

        if reads:

            def do_begin(self, dbapi_connection: PoolProxiedConnection) -> None:
                info = dbapi_connection.info
                if _READS not in info:  # in this checkout
                    _undo_at_return(self, dbapi_connection)
                    info[_READS] = True
                    run(cast("DBAPIConnection", dbapi_connection.dbapi_connection), _QUERY_ONLY)

    twin = cast("Dialect", Beginning.__new__(Beginning))
    twin.__dict__ = dialect.__dict__
    return twin


_QUERY_ONLY: Final = "PRAGMA query_only = ON"


def _begin(cursor: Any, statement: str, context: Any, how: str) -> None:
    """Send BEGIN, if a statement needs a transaction and there is none yet."""
    driver: Any = getattr(cursor, "connection", None)  # sqlite3's
    wrapped = None
    if driver is None:  # aiosqlite
        wrapped = context.root_connection.connection.dbapi_connection
        driver = wrapped.driver_connection
    if driver.in_transaction:
        return
    connection: Connection = context.root_connection
    if _ALONE.match(statement):
        if _SETTING.match(statement):
            _undo_at_return(connection.dialect, connection.connection)
            connection.info[_CHANGED] = True
        return
    # ``None`` is how SQLAlchemy asks the driver for AUTOCOMMIT.
    if driver.isolation_level is None or not connection.in_transaction():
        return
    kind = how if getattr(connection, "may_write", True) else "deferred"
    if wrapped is not None:
        run(wrapped, f"BEGIN {kind}")
    else:
        driver.execute(f"BEGIN {kind}").close()


def _undo_at_return(dialect: Dialect, connection: PoolProxiedConnection) -> None:
    """Make a pool undo changes of pragmas, from the first such change on: others pay nothing."""
    state = vars(dialect)
    me = object()
    if state.setdefault(_UNDOES, me) is me:
        pool = sqlalchemy_private.pool_of(connection)
        event.listen(pool, "reset", _undo(state.get(_PRAGMAS, ())))


def _undo(pragmas: tuple[str, ...]) -> Any:
    def undo(
        connection: DBAPIConnection, record: ConnectionPoolEntry | None, _state: object
    ) -> None:
        if record is None:  # it is detached, and belongs to no pool
            return
        read, changed = record.info.pop(_READS, False), record.info.pop(_CHANGED, False)
        if read or changed:
            driver: Any = getattr(connection, "driver_connection", connection)
            if driver.in_transaction:  # whose holder dropped it; foreign keys need its end
                connection.rollback()
            run(connection, "PRAGMA query_only = OFF", *(pragmas if changed else ()))

    return undo
