"""Methods of an engine's ``Dialect`` that are wrapped, each once, and why no event does it.

SQLAlchemy's documented events would be the first choice. A listener to ``begin``, ``commit`` or
``rollback`` makes each connection of the engine look for listeners at every statement, which costs
more than what it is for. A listener to ``commit`` runs before the COMMIT, so that it sees neither
its error nor its success. No event surrounds closing. So the methods are replaced on the one
dialect of the engine, here and in no other module:

``do_commit``
    is refused where the database has given the transaction up (``drivers/failed_transactions.py``);
    records that COMMIT was sent and answered (``drivers/commit_stage.py``); finishes in spite of a
    cancellation (async); and, if its reply was lost, lets the verification of
    ``run_in_transaction`` find out.
``do_prepare_twophase``, ``do_commit_twophase``
    are recorded likewise; the first one is refused likewise.
``do_rollback``
    removes these records; finishes in spite of a cancellation (async); is left out where aiosqlite
    has no transaction.
``do_close``
    ends a broken connection without an error in the log, on asynchronous drivers.
``do_terminate``
    finishes in spite of a cancellation (async).

``watch_commits_of`` does the first three for the engines of a session that this package did not
make. ``do_begin`` and ``do_execute`` of SQLite, which begin its transactions, are a subclass of its
dialect: see ``engine/sqlite_begin.py``. ``Dialect.connect`` is composed in ``engine/connect.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import event

from sessionfactory.drivers import commit_stage, connections, failed_transactions, families
from sessionfactory.drivers.error_codes import is_answer
from sessionfactory.drivers.sqlalchemy_private import of_transaction
from sessionfactory.errors import CommitRolledBackError, SessionFactoryError, note_outcome
from sessionfactory.pool import shielded

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection, Dialect
    from sqlalchemy.orm import Session
    from sqlalchemy.pool import PoolProxiedConnection

    from sessionfactory.drivers.families import Family

    Ending = Callable[[PoolProxiedConnection], None]
    Settle = Callable[[Exception], None]

_NOT_ROLLED_BACK: Final = "sessionfactory_not_rolled_back"
_SETTLE: Final = "sessionfactory_settle"


def install(dialect: Dialect) -> None:
    """Wrap the methods of the dialect of an engine of ours."""
    watch_commits(dialect)
    if not dialect.is_async:
        vars(dialect)["do_rollback"] = _failing_for_good(dialect.do_rollback)
        return
    rollback = shielded.rolling_back(dialect.do_rollback)
    if families.of_dialect(dialect).is_sqlite:
        rollback = _sparing(rollback)
    hooks: dict[str, Any] = {"do_rollback": _failing_for_good(rollback)}
    if dialect.has_terminate:  # otherwise it is done without waiting
        if families.of_dialect(dialect).has_server:
            # ``do_close`` of an asynchronous driver raises where the server ended the connection
            # first, which SQLAlchemy logs as an error, and aiomysql's leaves the socket open.
            # ``do_terminate`` is orderly, too, and frees the socket in any case. Many connections
            # that are out when a factory closes have ended like this: see ``drain``.
            hooks["do_close"] = dialect.do_terminate
        hooks["do_terminate"] = shielded.terminating(dialect.do_terminate)
    vars(dialect).update(hooks)


def watch_commits(dialect: Dialect) -> bool:
    """Wrap the methods of a dialect that end transactions, once; of a user's engine too.

    Thread-safe.

    Returns:
        whether that is new.
    """
    me = object()
    if vars(dialect).setdefault(commit_stage.RECORDS, me) is not me:
        return False
    event.listen(dialect, "handle_error", failed_transactions.note_failure)
    family = families.of_dialect(dialect)
    commit = _refusing(dialect.do_commit, dialect.do_rollback, family)
    if dialect.is_async:
        commit = shielded.committing(commit)
    hooks: dict[str, Any] = {
        "do_commit": _recording(commit),
        "do_rollback": _forgetting(dialect.do_rollback),
        "do_prepare_twophase": _preparing(dialect.do_prepare_twophase, family),
        "do_commit_twophase": _committing_prepared(dialect.do_commit_twophase),
    }
    vars(dialect).update(hooks)
    return True


def watch_commits_of(session: Session) -> None:
    """Wrap those methods for the engines that a session uses, whatever made them."""
    transaction = session.get_transaction()
    for connection in () if transaction is None else of_transaction(transaction):
        if watch_commits(connection.dialect) and not (connection.closed or connection.invalidated):
            failed_transactions.assume_failure(connection)
    if session.bind is not None:
        watch_commits(session.bind.dialect)


def settle_next_commit(connection: PoolProxiedConnection, settle: Settle) -> None:
    """Call a function with the error of a connection's next COMMIT, if that has one.

    Args:
        connection: whose transaction is about to be committed.
        settle: returns if the COMMIT has happened nevertheless; raises otherwise.
    """
    connection.info[_SETTLE] = settle


def _recording(commit: Ending) -> Ending:
    def do_commit(connection: PoolProxiedConnection) -> None:
        settle: Settle | None = connection.info.pop(_SETTLE, None)
        commit_stage.note_sent(connection)
        try:
            commit(connection)
        except BaseException as error:
            commit_stage.note_commit(error)
            note_outcome(error, "rolled back" if is_answer(error) else "uncertain")
            if settle is None or not isinstance(error, Exception):
                raise
            settle(error)
        commit_stage.note_answered(connection)

    return do_commit


def _refusing(commit: Ending, rollback: Ending, family: Family) -> Ending:
    on_postgresql = family.speaks_postgresql

    def do_commit(connection: PoolProxiedConnection) -> None:
        if not (on_postgresql or failed_transactions.RECORD in connection.info):
            commit(connection)
            return
        try:
            failed_transactions.refuse(connection, family)
        except CommitRolledBackError:
            # SQLAlchemy counts a transaction as over whose COMMIT has failed, and sends nothing.
            try:
                rollback(connection)
            except Exception as lost:  # noqa: BLE001 - it ended in any case
                connection.invalidate(lost)
            raise
        commit(connection)

    return do_commit


def _forgetting(rollback: Ending) -> Ending:
    def do_rollback(connection: PoolProxiedConnection) -> None:
        failed_transactions.forget(connection)
        commit_stage.note_ended(connection)
        rollback(connection)

    return do_rollback


def _preparing(prepare: Callable[..., None], family: Family) -> Callable[..., None]:
    def do_prepare_twophase(connection: Connection, xid: object) -> None:
        try:
            failed_transactions.refuse(connection.connection, family)
            prepare(connection, xid)
        except BaseException as error:
            commit_stage.note_commit(error)
            raise

    return do_prepare_twophase


def _committing_prepared(commit: Callable[..., None]) -> Callable[..., None]:
    def do_commit_twophase(connection: Connection, *arguments: Any, **keywords: Any) -> None:
        proxied = connection.connection
        commit_stage.note_sent(proxied)
        try:
            commit(connection, *arguments, **keywords)
        except BaseException as error:
            commit_stage.note_commit(error)
            raise
        commit_stage.note_answered(proxied)

    return do_commit_twophase


def _sparing(rollback: Ending) -> Ending:
    """Return a ROLLBACK that leaves aiosqlite's thread alone where there is no transaction."""

    def do_rollback(connection: PoolProxiedConnection) -> None:
        if connections.is_in_transaction(connection.dbapi_connection):
            rollback(connection)

    return do_rollback


def _failing_for_good(rollback: Ending) -> Ending:
    """Return a ROLLBACK that raises on a connection on which one has failed.

    asyncpg's adapter forgets a transaction that it failed to roll back, as while another task is
    inside the connection. The pool's own ROLLBACK would send nothing, and the connection return to
    the pool with the transaction open: with its locks, and of no use to anyone.
    """

    def do_rollback(connection: PoolProxiedConnection) -> None:
        try:
            info = connection.info
        except NotImplementedError:  # while the engine's first connection is inspected
            rollback(connection)
            return
        if _NOT_ROLLED_BACK in info:
            raise SessionFactoryError("an earlier ROLLBACK of this connection has failed")
        try:
            rollback(connection)
        except Exception:
            info[_NOT_ROLLED_BACK] = True  # gone when the connection is
            raise

    return do_rollback
