"""The one connection of a rollback fake, and what can be wrong with its use."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NoReturn, cast

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql.elements import ReleaseSavepointClause

from sessionfactory.drivers import connections, families
from sessionfactory.errors import SessionFactoryError
from sessionfactory.pool.owners import current_owner, name_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import CursorResult, Engine, Executable, NestedTransaction
    from sqlalchemy.engine.interfaces import DBAPIConnection

    from sessionfactory.pool.owners import Owner

_FLOOR: Final = "sessionfactory_rollback"


class InterleavedTransactionsError(SessionFactoryError):
    """A transaction was about to end while a later one, on the same connection, is open."""


class ConcurrentUseError(SessionFactoryError):
    """Two threads or tasks used the one connection at the same time."""


class SessionLeftOpenError(SessionFactoryError):
    """A block ended while a session in it still had a transaction; everything was undone."""


class ConnectionLostError(SessionFactoryError):
    """The connection under a rollback fake was lost; everything is undone, the fake unusable."""


class NotUndoneError(SessionFactoryError):
    """Something was committed outside the control of a rollback fake, or was about to be."""


class ExclusiveUse:
    """Admits one thread or task, re-entrantly, and raises in any other, naming the first.

    It never waits: a fake that waited would hide the race that it exists to show.
    """

    __slots__ = ("_deferred", "_depth", "_inside")

    def __init__(self) -> None:
        self._inside: dict[str, Owner] = {}
        self._depth = 0
        self._deferred: list[Callable[[], object]] = []

    def __enter__(self) -> None:
        me = current_owner()
        inside = self._inside.setdefault("inside", me)  # atomic, so that no lock is needed
        if inside is not me:
            raise ConcurrentUseError(
                f"The {name_of(me)} uses a rollback fake while the {name_of(inside)} is inside a"
                " call: its sessions share one connection, which serves one at a time."
                " Finish one before the other starts, or test concurrency on a database"
                " of its own."
            )
        self._depth += 1

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if not self._depth:
            del self._inside["inside"]
            self._run_deferred()

    def run_when_free(self, work: Callable[[], object]) -> None:
        """Run something when the current user leaves; at once if there is none."""
        self._deferred.append(work)
        if not self._inside:  # pragma: no cover - it left between two lines of this thread
            self._run_deferred()

    def _run_deferred(self) -> None:
        with suppress(IndexError):  # atomic: only one of two threads gets it
            self._deferred.pop()()


def _refusing(engine: Engine) -> Engine:
    """Return a view of an engine that opens no connection: what is done on it would not be undone.

    Code that has a session reaches its engine by ``session.get_bind().engine``.
    """

    def refuse(*_: object, **__: object) -> NoReturn:
        raise NotUndoneError(
            "A connection of the engine itself is not undone by a rollback fake, and does not see"
            " what its sessions have written. Use session.connection(), or session.execute()."
        )

    view = engine.execution_options()
    vars(view).update(connect=refuse, begin=refuse, raw_connection=refuse)
    return view


class SharedConnection(Connection):
    """A connection whose transaction is never committed, and that serves one user at a time."""

    def __init__(self, engine: Engine) -> None:
        self.exclusive: ExclusiveUse = ExclusiveUse()
        self._closed_early = False
        super().__init__(engine)
        self.engine = _refusing(engine)
        try:
            if self._is_autocommit():
                self.execution_options(isolation_level=self.default_isolation_level)
            self._root = self.begin()
            self._began_itself = self._began_sqlite()
            # Marks where the transaction began: whether it is still there shows at the end.
            self.dialect.do_savepoint(self, _FLOOR)
        except BaseException:
            super().close()
            raise

    def close(self) -> None:
        """Refuse further use; the real end is deferred until all sessions have ended."""
        self._closed_early = True

    def execute(self, statement: Executable, *args: Any, **kwargs: Any) -> CursorResult[Any]:
        """Execute a statement."""
        with self.exclusive:
            try:
                return super().execute(statement, *args, **kwargs)
            except DBAPIError:
                # Where a real COMMIT ends a failed transaction, the RELEASE of a savepoint does
                # not, and SQLAlchemy would leave it so: PostgreSQL would refuse all that follows.
                if isinstance(statement, ReleaseSavepointClause) and not self.invalidated:
                    with suppress(DBAPIError):
                        self.dialect.do_rollback_to_savepoint(self, cast("str", statement.ident))
                raise

    def scalar(self, *args: Any, **kwargs: Any) -> Any:
        """Execute a statement and return one value."""
        with self.exclusive:
            return super().scalar(*args, **kwargs)

    def exec_driver_sql(self, *args: Any, **kwargs: Any) -> CursorResult[Any]:
        """Execute a string as it is."""
        with self.exclusive:
            return super().exec_driver_sql(*args, **kwargs)

    def begin_nested(self) -> NestedTransaction:
        """Begin a savepoint."""
        with self.exclusive:
            return super().begin_nested()

    def commit(self) -> NoReturn:
        """Refuse: it would commit what is to be undone."""
        raise NotUndoneError(
            "The connection under a rollback fake is not committed: that could not be undone."
            " Commit the session."
        )

    @property
    def loss(self) -> ConnectionLostError | None:
        """What happened to the connection, if it can no longer be used."""
        if self._closed_early or self.closed:
            happened = "was closed"
        elif self.invalidated:
            happened = "was lost or invalidated"
        elif not self._root.is_active:
            happened = "was rolled back past its sessions"
        else:
            return None
        return ConnectionLostError(
            f"The one connection of the rollback fake {happened}: what was done on it is undone,"
            " committed or not, and nothing more can be done on it. End sessions instead, and give"
            " the fake's block a new start."
        )

    def _undo(self) -> SessionFactoryError | None:
        early_loss = self.loss  # also one by ``close``, which the next line forgets
        self._closed_early = False
        problem = self.loss or self._return_to_floor()
        if self._began_itself and problem is None:
            self.exec_driver_sql("ROLLBACK")  # the driver may not know of this transaction
        self._root.close()
        return early_loss or problem

    def release(self) -> SessionFactoryError | None:
        """Undo everything, check the connection in, and return the problem, if any."""
        try:
            return self._undo()
        finally:
            super().close()

    def _is_autocommit(self) -> bool:
        """Return whether the engine's connections are in AUTOCOMMIT: nothing can be undone."""
        raw = cast("DBAPIConnection", self.connection.dbapi_connection)
        try:
            return self.dialect.detect_autocommit_setting(raw)
        except NotImplementedError:  # the dialect does not know
            return False

    def _began_sqlite(self) -> bool:
        """Begin where the driver leaves that to the first write; return whether it did.

        It begins nothing before SAVEPOINT, whose RELEASE then commits.
        """
        raw = self.connection.dbapi_connection
        if not families.of_dialect(self.dialect).is_sqlite or connections.is_in_transaction(raw):
            return False
        self.exec_driver_sql("BEGIN")
        return True

    def undo_to(self, savepoint: NestedTransaction) -> SessionFactoryError | None:
        """Undo what was done since a savepoint, and return the problem that was found, if any."""
        try:
            while (nested := self.get_nested_transaction()) is not None and nested is not savepoint:
                nested.close()
            if not savepoint.is_active:
                return _not_undone()
            savepoint.rollback()
        except DBAPIError as error:
            return self.loss or _not_undone(error)
        return None

    def _return_to_floor(self) -> SessionFactoryError | None:
        try:
            while (nested := self.get_nested_transaction()) is not None:
                nested.close()  # one that a session left open, or could not end
            self.dialect.do_rollback_to_savepoint(self, _FLOOR)
        except DBAPIError as error:
            return self.loss or _not_undone(error)
        return None


def _not_undone(cause: BaseException | None = None) -> NotUndoneError:
    problem = NotUndoneError(
        "The transaction of the rollback fake was ended past its sessions, so that what was"
        " done before is in the database: by a COMMIT or ROLLBACK in SQL, or by a statement"
        " that commits by itself, as CREATE, ALTER, DROP and TRUNCATE do on MariaDB and"
        " MySQL. Do these before the block."
    )
    problem.__cause__ = cause
    return problem
