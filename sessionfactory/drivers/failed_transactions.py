"""A COMMIT that would save nothing, because the database has given the transaction up, is refused.

After a statement has failed, PostgreSQL answers COMMIT with ROLLBACK, and no driver makes an error
of it. MySQL and MariaDB roll back at a deadlock, SQLite when its disk is full: the next statement
begins another transaction, and COMMIT saves half of the work. If the error of the statement was
caught, nothing else shows that.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from attrs import frozen
from sqlalchemy import event
from sqlalchemy.exc import SQLAlchemyError

from sessionfactory.drivers import connections, families
from sessionfactory.drivers.error_codes import classify
from sessionfactory.drivers.sqlalchemy_private import of_transaction
from sessionfactory.errors import CommitRolledBackError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection, Dialect, ExceptionContext
    from sqlalchemy.orm import Session
    from sqlalchemy.pool import PoolProxiedConnection

    from sessionfactory.drivers.families import Family

_INSTALLED: Final = "sessionfactory_refuses_failed_commits"
_FAILURE: Final = "sessionfactory_failed_statement"


@frozen
class _Failure:
    """A statement that failed in the open transaction. It holds no error, which holds frames."""

    name: str = "its error was caught"
    meanings: tuple[str, ...] = ()


def refuse_commits(dialect: Dialect) -> bool:
    """Make a dialect refuse to commit transactions that the database has given up.

    Done once for a dialect; the method of the dialect is wrapped, because a listener to "commit"
    cannot tell whether the COMMIT will be sent, and costs each statement of the engine. Thread-safe
    in that a second wrapping does no harm.

    Returns:
        whether that is new.
    """
    if _INSTALLED in vars(dialect):
        return False
    vars(dialect)[_INSTALLED] = True
    event.listen(dialect, "handle_error", _note)
    vars(dialect).update(
        do_commit=_committing(dialect, dialect.do_commit, dialect.do_rollback),
        do_rollback=_rolling_back(dialect.do_rollback),
        do_prepare_twophase=_preparing(dialect, dialect.do_prepare_twophase),
    )
    return True


def refuse_commits_of(session: Session) -> None:
    """Make the engines that a session uses, whatever made them, refuse such commits.

    A connection that is in use already may have had errors that were not seen.
    """
    transaction = session.get_transaction()
    for connection in () if transaction is None else of_transaction(transaction):
        if refuse_commits(connection.dialect) and not (connection.closed or connection.invalidated):
            connection.info.setdefault(_FAILURE, _Failure())
    if session.bind is not None:
        refuse_commits(session.bind.dialect)


def _committing(
    dialect: Dialect, commit: Callable[[Any], None], rollback: Callable[[Any], None]
) -> Callable[[Any], None]:
    family = families.of_dialect(dialect)

    def do_commit(proxied: PoolProxiedConnection) -> None:
        try:
            _refuse(proxied, family)
        except CommitRolledBackError:
            # SQLAlchemy counts a transaction as over whose COMMIT has failed, and sends nothing.
            try:
                rollback(proxied)
            except Exception as lost:  # noqa: BLE001 - it ended in any case
                proxied.invalidate(lost)
            raise
        commit(proxied)

    return do_commit


def _rolling_back(rollback: Callable[[Any], None]) -> Callable[[Any], None]:
    def do_rollback(proxied: PoolProxiedConnection) -> None:
        _failure_of(proxied)
        rollback(proxied)

    return do_rollback


def _preparing(
    dialect: Dialect, prepare: Callable[[Connection, Any], None]
) -> Callable[[Connection, Any], None]:
    family = families.of_dialect(dialect)

    def do_prepare_twophase(connection: Connection, xid: Any) -> None:
        _refuse(connection.connection, family)
        prepare(connection, xid)

    return do_prepare_twophase


def _failure_of(proxied: PoolProxiedConnection) -> _Failure | None:
    """Return and forget what is noted of a connection's transaction."""
    try:
        failure: _Failure | None = proxied.info.pop(_FAILURE, None)
    except NotImplementedError:  # while the engine's first connection is inspected
        return None
    return failure


def _note(context: ExceptionContext) -> None:
    """Note that a statement failed, if that may be the end of its transaction."""
    connection = context.connection
    if connection is None or context.is_disconnect:
        return
    family = families.of_dialect(context.dialect)
    meanings = classify(context.original_exception).meanings
    with suppress(SQLAlchemyError):  # it is closed
        if _may_end_transaction(meanings, family, connection):
            name = type(context.original_exception).__name__
            connection.info[_FAILURE] = _Failure(name, meanings)


def _may_end_transaction(meanings: tuple[str, ...], family: Family, connection: Connection) -> bool:
    if family.speaks_postgresql:
        return "already failed" not in meanings  # by a statement that is noted
    if family.is_sqlite and connections.is_in_transaction(connection.connection.dbapi_connection):
        return False
    return "rolled back" in meanings or (family.speaks_mysql and "lock timeout" in meanings)


def _refuse(proxied: PoolProxiedConnection, family: Family) -> None:
    """Raise if COMMIT would save nothing, or half.

    Raises:
        CommitRolledBackError: the database has given the transaction up.
    """
    failure = _failure_of(proxied)
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
