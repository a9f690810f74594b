"""Read-only transactions: the database refuses writes, and a connection what would end that.

What goes to the driver's own connection, past SQLAlchemy, is not looked at, nor what a function or
a procedure of the database does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Connection, RootTransaction
from sqlalchemy.sql.dml import UpdateBase
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.sql.selectable import SelectBase

from sessionfactory.drivers import connections, families, sqlalchemy_private
from sessionfactory.drivers.error_codes import classify
from sessionfactory.drivers.sqlalchemy_private import listen_once
from sessionfactory.engine.views.read_only_sql import ends_read_only
from sessionfactory.errors import Fault, ReadOnlyError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Dialect, Engine, ExceptionContext

READ_ONLY: Final = "sessionfactory_read_only"
"""The execution option of connections whose transactions are read-only."""


def is_read_only(source: Engine | Connection) -> bool:
    """Return whether the transactions of an engine or a connection are meant to be read-only."""
    options = source.get_execution_options()
    return bool(options.get(READ_ONLY) or options.get("postgresql_readonly"))


def translate_refusals(engine: Engine) -> None:
    """Turn a database's refusal of a write into a ``ReadOnlyError``, on read-only connections.

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


def hold(view: Engine, *, autocommits: bool, in_transactions: bool, ends_in_commit: bool) -> None:
    """Make the connections of a view refuse what would end or change their being read-only.

    Args:
        view: whose transactions the database was asked to hold read-only.
        autocommits: whether its statements commit by themselves.
        in_transactions: whether it is each transaction that is read-only, so that a connection that
            turned to AUTOCOMMIT would write.
        ends_in_commit: whether transactions that are closed end in COMMIT. There is nothing to
            undo, but after a ROLLBACK psycopg forgets the statements that it has prepared.
    """
    if autocommits or not in_transactions:
        kind: type[Connection] = _ReadingConnection
    else:
        kind = _CommittingConnection if ends_in_commit else _TransactionalConnection
    sqlalchemy_private.connect_as(view, kind)


_BUILT: Final = (SelectBase, UpdateBase, FunctionElement)
"""Statements that do none of this, whatever they hold."""


def _refuse(statement: object, dialect: Dialect) -> None:
    if isinstance(statement, _BUILT):
        return
    text = getattr(statement, "text", getattr(statement, "statement", statement))
    if isinstance(text, str) and ends_read_only(text, families.of_dialect(dialect)):
        raise ReadOnlyError(
            "This transaction is read-only, and this statement would end that. Write in"
            " sessions.begin()"
        )


class _ReadingConnection(Connection):
    """A connection that the database holds read-only, by whatever means."""

    def execute(self, statement: Any, *arguments: Any, **keywords: Any) -> Any:
        """Execute a statement."""
        _refuse(statement, self.dialect)
        return super().execute(statement, *arguments, **keywords)

    def scalar(self, statement: Any, *arguments: Any, **keywords: Any) -> Any:
        """Execute a statement and return its first value."""
        _refuse(statement, self.dialect)
        return super().scalar(statement, *arguments, **keywords)

    def exec_driver_sql(self, statement: str, *arguments: Any, **keywords: Any) -> Any:
        """Execute SQL in the driver's words."""
        _refuse(statement, self.dialect)
        return super().exec_driver_sql(statement, *arguments, **keywords)


class _TransactionalConnection(_ReadingConnection):
    """A connection whose transactions are read-only, each of them."""

    @staticmethod
    def refuse_options(options: Mapping[str, Any]) -> None:
        """Raise if execution options would end the transactions' being read-only.

        Raises:
            SettingsError: they would.
        """
        level = str(options.get("isolation_level", "")).upper()
        if level == "AUTOCOMMIT":
            problem = (
                "a reader's transactions are read-only, and AUTOCOMMIT has none; open the session"
                ' from with_options(sessions, isolation_level="AUTOCOMMIT", read_only=True)'
            )
            raise SettingsError([Fault("isolation_level", problem)])
        for name in ("postgresql_readonly", READ_ONLY):
            if not options.get(name, True):
                problem = "a reader stays read-only; write in sessions.begin()"
                raise SettingsError([Fault(name, problem)])

    def execution_options(self, **options: Any) -> Connection:
        """Set execution options."""
        self.refuse_options(options)
        return super().execution_options(**options)


class _CommittingConnection(_TransactionalConnection):
    """A connection whose read-only transactions end in COMMIT, but for those that failed.

    A transaction that is rolled back explicitly is rolled back.
    """

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
