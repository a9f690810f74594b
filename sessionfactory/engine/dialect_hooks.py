"""Methods of an engine's ``Dialect`` that are wrapped, each once, and why no event does it.

SQLAlchemy's documented events would be the first choice. A listener to ``begin``, ``commit`` or
``rollback`` makes each connection of the engine look for listeners at every statement, which costs
more than what it is for. A listener to ``commit`` runs before the COMMIT, so that it sees neither
its error nor its answer. No event stands around closing. So the methods are replaced on the one
dialect of the engine, here and in no other module:

``do_commit``
    is refused where the database has given the transaction up (``drivers/failed_transactions.py``,
    which wraps ``do_rollback`` and ``do_prepare_twophase`` for that, too);
    records that COMMIT was sent and whether it was answered; finishes in spite of a cancellation
    (async); and, if its answer was lost, lets the verification of ``run_in_transaction`` find out.
``do_rollback``
    finishes in spite of a cancellation (async); is left out where aiosqlite has no transaction.
``do_close``
    ends a broken connection without an error in the log, on asynchronous drivers.
``do_terminate``
    finishes in spite of a cancellation (async).

``do_begin`` and ``do_execute`` of SQLite, which begin its transactions, are a subclass of its
dialect: see ``engine/sqlite.py``. ``Dialect.connect`` is composed in ``engine/connect.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sessionfactory.drivers import commit_stage, connections, failed_transactions, families
from sessionfactory.drivers.error_codes import is_answer
from sessionfactory.errors import note_outcome
from sessionfactory.pool import shielded

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Dialect
    from sqlalchemy.pool import PoolProxiedConnection

    Ending = Callable[[PoolProxiedConnection], None]
    Settle = Callable[[Exception], None]

_INSTALLED: Final = "sessionfactory_commits"
_SETTLE: Final = "sessionfactory_settle"


def install(dialect: Dialect) -> None:
    """Wrap the methods of the dialect of an engine of ours."""
    failed_transactions.refuse_commits(dialect)
    record_commits(dialect)
    if not dialect.is_async:
        return
    rollback = shielded.rolling_back(dialect.do_rollback)
    if families.of_dialect(dialect).is_sqlite:
        rollback = _sparing(rollback)
    hooks: dict[str, Any] = {"do_rollback": rollback}
    if dialect.has_terminate:  # otherwise it is done without waiting
        if families.of_dialect(dialect).has_server:
            # ``do_close`` of an asynchronous driver raises where the server ended the connection
            # first, which SQLAlchemy logs as an error, and aiomysql's leaves the socket open.
            # ``do_terminate`` is orderly, too, and frees the socket in any case. Many connections
            # that are out when a factory closes have ended like this: see ``drain``.
            hooks["do_close"] = dialect.do_terminate
        hooks["do_terminate"] = shielded.terminating(dialect.do_terminate)
    vars(dialect).update(hooks)


def record_commits(dialect: Dialect) -> None:
    """Wrap the ``do_commit`` of a dialect, once; that of a user's engine too. Thread-safe."""
    me = object()
    if vars(dialect).setdefault(_INSTALLED, me) is me:
        vars(dialect)["do_commit"] = _recording(shielded.committing(dialect.do_commit))


def settle_next_commit(connection: PoolProxiedConnection, settle: Settle) -> None:
    """Call a function with the error of a connection's next COMMIT, if that has one.

    Args:
        connection: whose transaction is about to be committed.
        settle: returns if the COMMIT has happened nevertheless; raises otherwise.
    """
    connection.info[_SETTLE] = settle


def _recording(commit: Ending) -> Ending:
    def do_commit(connection: PoolProxiedConnection) -> None:
        info = connection.info
        settle: Settle | None = info.pop(_SETTLE, None)
        try:
            commit(connection)
        except BaseException as error:
            commit_stage.note_commit(error)
            note_outcome(error, "rolled back" if is_answer(error) else "uncertain")
            if settle is None or not isinstance(error, Exception):
                raise
            settle(error)

    return do_commit


def _sparing(rollback: Ending) -> Ending:
    """Return a ROLLBACK that leaves aiosqlite's thread alone where there is no transaction."""

    def do_rollback(connection: PoolProxiedConnection) -> None:
        if connections.is_in_transaction(connection.dbapi_connection):
            rollback(connection)

    return do_rollback
