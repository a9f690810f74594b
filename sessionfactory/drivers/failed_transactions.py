"""Whether a COMMIT would save nothing, because the database has given the transaction up.

After a statement has failed, PostgreSQL answers COMMIT with ROLLBACK, and no driver makes an error
of it. MySQL and MariaDB roll back at a deadlock, SQLite when its disk is full: the next statement
begins another transaction, and COMMIT saves half of the work. If the error of the statement was
caught, nothing else shows that. The hooks that ask here are in ``engine/dialect_hooks.py``.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from attrs import frozen
from sqlalchemy.exc import SQLAlchemyError

from sessionfactory.drivers import connections, families
from sessionfactory.drivers.error_codes import classify
from sessionfactory.errors import CommitRolledBackError

if TYPE_CHECKING:
    from sqlalchemy import Connection, ExceptionContext
    from sqlalchemy.pool import PoolProxiedConnection

    from sessionfactory.drivers.families import Family

RECORD: Final = "sessionfactory_failed_statement"
"""What is recorded of a connection's transaction: a key of its ``info``."""


@frozen
class _Failure:
    """A statement that failed in the open transaction. It holds no error, which holds frames."""

    name: str = "its error was caught"
    meanings: tuple[str, ...] = ()


def assume_failure(connection: Connection) -> None:
    """Record that a connection may have had errors that were not seen: it is in use already."""
    connection.info.setdefault(RECORD, _Failure())


def forget(proxied: PoolProxiedConnection) -> _Failure | None:
    """Return and remove what is recorded of a connection's transaction."""
    try:
        failure: _Failure | None = proxied.info.pop(RECORD, None)
    except NotImplementedError:  # while the engine's first connection is inspected
        return None
    return failure


def note_failure(context: ExceptionContext) -> None:
    """Record that a statement failed, if that may be the end of its transaction.

    A listener to ``handle_error`` of a dialect.
    """
    connection = context.connection
    if connection is None or context.is_disconnect:
        return
    family = families.of_dialect(context.dialect)
    meanings = classify(context.original_exception).meanings
    with suppress(SQLAlchemyError):  # it is closed
        if _may_end_transaction(meanings, family, connection):
            name = type(context.original_exception).__name__
            connection.info[RECORD] = _Failure(name, meanings)


def _may_end_transaction(meanings: tuple[str, ...], family: Family, connection: Connection) -> bool:
    if family.speaks_postgresql:
        return "already failed" not in meanings  # by a statement that is noted
    if family.is_sqlite and connections.is_in_transaction(connection.connection.dbapi_connection):
        return False
    return "rolled back" in meanings or (family.speaks_mysql and "lock timeout" in meanings)


def refuse(proxied: PoolProxiedConnection, family: Family) -> None:
    """Raise if COMMIT would save nothing, or half.

    Raises:
        CommitRolledBackError: the database has given the transaction up.
    """
    failure = forget(proxied)
    if family.speaks_postgresql:
        failed = connections.has_failed_transaction(proxied.dbapi_connection)
        if failed is None:
            failed = failure is not None and _is_failed_at_server(proxied)
    elif failure is not None and "rolled back" not in failure.meanings:
        failed = family.speaks_mysql and bool(failure.meanings) and _rolls_back_at_timeout(proxied)
    else:
        failed = failure is not None
    if not failed:
        return
    failure = failure or _Failure()
    raise CommitRolledBackError(
        "Nothing of this transaction is saved: the database had given it up when a statement"
        f" failed ({failure.name}), and the error did not end the block. Let it through, or put the"
        " statement in a savepoint: session.begin_nested()",
        failure.meanings,
    )


def _is_failed_at_server(proxied: PoolProxiedConnection) -> bool:
    """Query PostgreSQL, where the driver does not know; after an error, and not otherwise."""
    try:
        _query(proxied, "SELECT 1")
    except Exception as error:  # noqa: BLE001 - another one is for COMMIT itself to meet
        return "already failed" in classify(error).meanings
    return False


def _rolls_back_at_timeout(proxied: PoolProxiedConnection) -> bool:
    """Query MySQL or MariaDB whether a lock timeout rolls back more than its statement."""
    return bool(_query(proxied, "SELECT @@GLOBAL.innodb_rollback_on_timeout"))


def _query(proxied: PoolProxiedConnection, query: str) -> Any:
    cursor = proxied.cursor()
    try:
        cursor.execute(query)
        return (cursor.fetchone() or (None,))[0]
    finally:
        cursor.close()
