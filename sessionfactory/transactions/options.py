"""Views of any session factory whose transactions have options."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, cast, overload

import attrs
from sqlalchemy import Connection, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from sessionfactory.drivers import families
from sessionfactory.drivers.asyncio_ext import AsyncSession
from sessionfactory.drivers.sqlalchemy_private import is_autocommit, of_session
from sessionfactory.engine.views import local_settings
from sessionfactory.engine.views.options import TransactionOptions
from sessionfactory.engine.views.views import keep_to
from sessionfactory.errors import Fault, SessionFactoryError, SettingsError
from sessionfactory.interfaces import makes_sessions

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from sqlalchemy.orm import SessionTransaction

    from sessionfactory.engine.views.options import IsolationLevel
    from sessionfactory.interfaces import AsyncSessionFactory, SessionFactory

S = TypeVar("S", bound=Session)
A = TypeVar("A", bound=AsyncSession)
T = TypeVar("T")
R = TypeVar("R")

_IN_AUTOCOMMIT: Final = (
    "local and timeouts belong to a transaction, and this connection is in AUTOCOMMIT, which has"
    " none"
)
_IN_USE: Final = (
    "the factory opened a session that holds a connection already, whose transaction has begun"
    " without these options; give it a factory whose sessions are new, and do what it does first,"
    " such as SET, by an event, or by the options themselves"
)


@overload
def with_options(
    sessions: SessionFactory[S],
    *,
    isolation_level: IsolationLevel | None = None,
    read_only: bool | None = None,
    deferrable: bool | None = None,
    statement_timeout: float | None = None,
    lock_timeout: float | None = None,
    schema_translate_map: Mapping[str | None, str | None] | None = None,
    local: Mapping[str, str] | None = None,
) -> SessionFactory[S]: ...


@overload
def with_options(
    sessions: AsyncSessionFactory[A],
    *,
    isolation_level: IsolationLevel | None = None,
    read_only: bool | None = None,
    deferrable: bool | None = None,
    statement_timeout: float | None = None,
    lock_timeout: float | None = None,
    schema_translate_map: Mapping[str | None, str | None] | None = None,
    local: Mapping[str, str] | None = None,
) -> AsyncSessionFactory[A]: ...


def with_options(  # noqa: PLR0913 - one keyword for each option
    sessions: SessionFactory[Any] | AsyncSessionFactory[Any],
    *,
    isolation_level: IsolationLevel | None = None,
    read_only: bool | None = None,
    deferrable: bool | None = None,
    statement_timeout: float | None = None,
    lock_timeout: float | None = None,
    schema_translate_map: Mapping[str | None, str | None] | None = None,
    local: Mapping[str, str] | None = None,
) -> SessionFactory[Any] | AsyncSessionFactory[Any]:
    """Return a view of a session factory, on the same pool, whose transactions have options.

    It works on any factory of either half, ``sessionmaker`` included, and on another view: the
    options add up. The options hold for each transaction, and is never left on a connection.
    Cheap enough to be made for each request. Thread-safe. ``None`` leaves an option as it is.

    Sessions that are bound to a connection, as those of a ``RollbackSessionFactory`` are, are in a
    transaction of that connection already: they get ``local`` and the timeouts, and nothing else.

    Args:
        sessions: the factory.
        isolation_level: of the transactions. ``"AUTOCOMMIT"`` has none: each statement is one, and
            a read costs one round trip.
        read_only: the database refuses writes, with ``ReadOnlyError``, on flush and in raw SQL.
            PostgreSQL, MariaDB, MySQL, SQLite.
        deferrable: PostgreSQL's, for a SERIALIZABLE read that never fails, but may wait to begin.
        statement_timeout: seconds that a statement may run. PostgreSQL, MariaDB, MySQL.
        lock_timeout: seconds that a statement may wait for a lock. PostgreSQL; in whole seconds
            MariaDB, MySQL.
        schema_translate_map: as SQLAlchemy's execution option.
        local: settings of PostgreSQL for each transaction, by name, for row-level security:
            ``{"app.tenant": "7"}``, which a policy reads by ``current_setting('app.tenant')``.

    Raises:
        SettingsError: a value cannot be used, or two contradict each other; and from the view, when
            it opens a session's connection, if the database cannot honour an option, or when it
            opens a session that holds a connection already: its transaction began without them.
        TypeError: this is no session factory.
    """
    given: object = sessions
    if not makes_sessions(given):
        raise TypeError(f"with_options takes a session factory, not {type(given).__name__}")
    options = TransactionOptions(
        isolation_level=isolation_level,
        read_only=read_only,
        deferrable=deferrable,
        statement_timeout=statement_timeout,
        lock_timeout=lock_timeout,
        schema_translate_map=schema_translate_map,
        local=local,
    )
    if isinstance(sessions, SessionsWithOptions):
        return cast("SessionFactory[Any]", sessions.and_also(options))
    consistent = TransactionOptions().and_also(options)
    return cast("SessionFactory[Any]", SessionsWithOptions(sessions, consistent))


@attrs.frozen(eq=False)
class SessionsWithOptions(Generic[T]):
    """A session factory of either half, whose sessions' transactions have options."""

    _sessions: Any
    _options: TransactionOptions

    def and_also(self, options: TransactionOptions) -> SessionsWithOptions[T]:
        """Return a view of the same factory with more options."""
        return SessionsWithOptions(self._sessions, self._options.and_also(options))

    def without(
        self, block: Callable[[Session], R]
    ) -> tuple[AsyncSessionFactory, Callable[[Session], R]]:
        """Return the factory that this is a view of, and a block that applies the options."""
        return self._sessions, lambda session: block(_apply_options(session, self._options))

    def __call__(self) -> T:
        """Return a new session; the caller closes it."""
        session = self._sessions()
        try:
            return cast("T", _apply_options(session, self._options))
        except SettingsError:
            if isinstance(session, Session):  # one of the async half cannot be closed from here
                session.close()
            raise

    def begin(self) -> ScopeWithOptions[T]:
        """Run one transaction, as the factory's own ``begin`` does."""
        return ScopeWithOptions(self._sessions.begin(), self._options)


@attrs.frozen(eq=False)
class ScopeWithOptions(Generic[T]):
    """A factory's ``begin()``, of either half, whose transaction has options."""

    _scope: Any
    _options: TransactionOptions

    def __enter__(self) -> T:
        session = self._scope.__enter__()
        try:
            return cast("T", _apply_options(session, self._options))
        except SettingsError as error:
            self._scope.__exit__(type(error), error, error.__traceback__)
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        return cast("None", self._scope.__exit__(kind, error, traceback))

    async def __aenter__(self) -> T:
        session = await self._scope.__aenter__()
        try:
            return cast("T", _apply_options(session, self._options))
        except SettingsError as error:
            await self._scope.__aexit__(type(error), error, error.__traceback__)
            raise

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        return cast("None", await self._scope.__aexit__(kind, error, traceback))


def _apply_options(session: T, options: TransactionOptions) -> T:
    """Give options to the transactions of a new session, which has no connection yet.

    Raises:
        SettingsError: it has one.
    """
    bare = session.sync_session if isinstance(session, AsyncSession) else session
    found = cast("Session", bare)
    if of_session(found):
        raise SettingsError([Fault("with_options", _IN_USE)])
    keep_to(found, options)
    if options.are_local:
        local = _Local(options)
        event.listen(found, "after_begin", local.apply)
        event.listen(found, "after_transaction_end", local.end)
    return session


@attrs.define(eq=False)
class _Local:
    """PostgreSQL settings of a session's transactions, applied when one begins."""

    _options: TransactionOptions
    _joined: tuple[Connection, dict[str, str]] | None = None
    """A connection whose transaction goes on after the session's, and its settings before.

    Such are those of a ``RollbackSessionFactory``.
    """

    def apply(self, _: Session, transaction: SessionTransaction, connection: Connection) -> None:
        if transaction.nested or not families.of_dialect(connection.dialect).speaks_postgresql:
            return
        if is_autocommit(connection):  # the session's own, by its execution options
            raise SettingsError([Fault("local", _IN_AUTOCOMMIT)])
        settings = local_settings.settings_of(self._options)
        if connection.in_nested_transaction():
            self._joined = connection, local_settings.current(connection, settings)
        local_settings.say(connection, settings)

    def end(self, _: Session, transaction: SessionTransaction) -> None:
        if transaction.parent is None and self._joined is not None:
            (connection, before), self._joined = self._joined, None
            with suppress(DBAPIError, SessionFactoryError):  # the connection is unusable
                local_settings.say(connection, before)
