"""Read-only transactions, enforced by the database and not by good intentions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import event

from sessionfactory.engine import sqlite
from sessionfactory.errors import Fault, ReadOnlyError, SettingsError

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine, ExceptionContext

_READ_ONLY: Final = "sessionfactory_read_only"
_MYSQL: Final = frozenset({"mysql", "mariadb"})
_REFUSED: Final = {"25006", 1792}  # PostgreSQL's SQLSTATE, MySQL's error number
_SQLITE_READONLY: Final = 8


def read_only(engine: Engine) -> Engine:
    """Return a view of an engine, on the same pool, whose transactions cannot write.

    Raises:
        SettingsError: nothing would enforce it on this database.
    """
    options: dict[str, object] = {_READ_ONLY: True}
    if engine.dialect.name == "sqlite":
        return sqlite.read_only(engine, **options)
    if engine.dialect.name == "postgresql":
        return engine.execution_options(**options, postgresql_readonly=True)
    if engine.dialect.name in _MYSQL:
        return engine.execution_options(**options)
    problem = f"{engine.dialect.name} has no read-only transactions that could be enforced"
    raise SettingsError([Fault("url", problem)])


def enforce(engine: Engine) -> None:
    """Have the database enforce the views that ``read_only`` makes, and translate its refusals."""
    if engine.dialect.name in _MYSQL:
        event.listen(engine, "begin", _begin_on_mysql)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "reset", sqlite.end_read_only)
    event.listen(engine, "handle_error", _translate, retval=True)


def is_asked_for(connection: Connection | None) -> bool:
    """Say whether a connection's transactions are meant to be read-only."""
    if connection is None:
        return False
    options = connection.get_execution_options()
    return bool(options.get(_READ_ONLY) or options.get("postgresql_readonly"))


def _begin_on_mysql(connection: Connection) -> None:
    if connection.get_execution_options().get(_READ_ONLY):
        connection.exec_driver_sql("START TRANSACTION READ ONLY")


def _translate(context: ExceptionContext) -> ReadOnlyError | None:
    connection = context.connection
    if connection is None or not connection.get_execution_options().get(_READ_ONLY):
        return None
    error = context.original_exception
    codes = {getattr(error, "sqlstate", None), getattr(error, "pgcode", None), *error.args[:1]}
    sqlite_code = getattr(error, "sqlite_errorcode", None) or 0
    if not codes & _REFUSED and sqlite_code & 0xFF != _SQLITE_READONLY:
        return None
    told = " ".join(str(error).split())  # psycopg2's words end in a line break
    return ReadOnlyError(f"This transaction is read-only: {told}. Write in sessions.begin()")
