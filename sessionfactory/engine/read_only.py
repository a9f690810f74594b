"""Read-only transactions, enforced by the database and not by good intentions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import Connection, RootTransaction

from sessionfactory.drivers import connections
from sessionfactory.drivers.error_codes import classify
from sessionfactory.drivers.sqlalchemy_private import listen_once
from sessionfactory.errors import ReadOnlyError

if TYPE_CHECKING:
    from sqlalchemy import Engine, ExceptionContext

READ_ONLY: Final = "sessionfactory_read_only"
"""The execution option of connections whose transactions are read-only."""


def is_read_only(source: Engine | Connection) -> bool:
    """Say whether the transactions of an engine or a connection are meant to be read-only."""
    options = source.get_execution_options()
    return bool(options.get(READ_ONLY) or options.get("postgresql_readonly"))


def translate_refusals(engine: Engine) -> None:
    """Have what the database says to a write be a ``ReadOnlyError``, on read-only connections.

    Once for an engine and all of its views: they share a dialect, which keeps the listeners.
    """
    listen_once(engine, "handle_error", _translate, retval=True)


def _translate(context: ExceptionContext) -> ReadOnlyError | None:
    connection = context.connection
    if connection is None or not connection.get_execution_options().get(READ_ONLY):
        return None
    error = context.original_exception
    if "read-only" not in classify(error).meanings:
        return None
    told = " ".join(str(error).split())  # psycopg2's words end in a line break
    return ReadOnlyError(f"This transaction is read-only: {told}. Write in sessions.begin()")


def end_in_commit(view: Engine) -> None:
    """Have the read-only transactions of a view on psycopg that are closed end in COMMIT.

    There is nothing to undo, but after a ROLLBACK psycopg forgets the statements that it has
    prepared. A transaction that failed, or that is rolled back in so many words, is rolled back.
    """
    vars(view)["connect"] = lambda: _ReadingConnection(view)


class _ReadingConnection(Connection):
    """A connection whose transactions are read-only."""

    def begin(self) -> RootTransaction:
        """Begin a transaction."""
        transaction = super().begin()
        transaction.__class__ = _ReadingTransaction
        return transaction


class _ReadingTransaction(RootTransaction):
    __slots__ = ()

    def close(self) -> None:
        """End the transaction."""
        if self.is_active and not self.connection.invalidated:
            driver = self.connection.connection.dbapi_connection
            if connections.is_in_transaction(driver):
                self.commit()
        super().close()
