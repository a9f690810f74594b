"""The sync factory: sessions and transactions on an engine that it owns."""

from __future__ import annotations

import threading
import warnings
from typing import TYPE_CHECKING, Any, Generic, Self

import attrs
from sqlalchemy.orm import Session

from sessionfactory._lazy import publish
from sessionfactory.config.hide_arguments import unseen
from sessionfactory.config.settings import DatabaseSettings
from sessionfactory.engine.managed import ManagedEngine
from sessionfactory.engine.views.views import READ_ONLY, keep_to
from sessionfactory.errors import ClosedError, Fault, SettingsError
from sessionfactory.pool.call_sites import note_opening
from sessionfactory.sessions.guarded_session import guarded
from sessionfactory.sessions.refusals import refuse_class
from sessionfactory.sessions.scope import ReadOnlySessions, S, TransactionScope
from sessionfactory.sessions.session_maker import FactorySessionmaker, keywords_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from sqlalchemy import Engine, orm

    from sessionfactory.interfaces import SessionFactory
    from sessionfactory.status import Health, Holder, PoolStatus


@unseen
@attrs.define(eq=False, repr=False)
class SqlAlchemySessionFactory(Generic[S]):
    """A ``SessionFactory`` that owns an engine, its pool and their life.

    The engine is built on first use. Close the factory, or use it as a context manager; one that is
    garbage-collected while its engine is open gives a ``ResourceWarning``. Thread-safe; the
    sessions are not, as SQLAlchemy's are not.

    Args:
        settings: the database.
        name: what messages call it.
        session_class: the class of the sessions.

    Raises:
        SettingsError: no engine could be built from these settings.
        TypeError: ``session_class`` is no class of sessions.
    """

    settings: DatabaseSettings = attrs.field(repr=False)
    name: str = attrs.field(default="default", kw_only=True)
    # Type checkers take ``S`` from the argument; where there is none, its default is this class.
    session_class: type[S] = attrs.field(  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
        default=Session, kw_only=True, repr=False
    )
    _managed: ManagedEngine = attrs.field(init=False, repr=False)
    _class: type[S] = attrs.field(init=False, repr=False)
    _maker: FactorySessionmaker[S] | None = attrs.field(init=False, default=None, repr=False)
    _making: threading.Lock = attrs.field(init=False, factory=threading.Lock, repr=False)
    _open: Callable[[], S] | None = attrs.field(init=False, default=None, repr=False)
    _open_to_write: Callable[[], S] | None = attrs.field(init=False, default=None, repr=False)

    def __attrs_post_init__(self) -> None:
        # Types forbid it; an untyped caller gets a sentence, which does not quote the URL.
        if not isinstance(self.settings, DatabaseSettings):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise SettingsError([Fault("", "expected DatabaseSettings: DatabaseSettings(url)")])
        refuse_class(self.session_class, Session)
        self._managed = ManagedEngine(self.settings, self.name)
        self._class = guarded(self.session_class)

    def __call__(self) -> S:
        """Return a new session; the caller closes it: ``with sessions() as session:``.

        Raises:
            ClosedError: the factory is closed.
        """
        open_session = self._open
        if open_session is None:
            open_session = self._open = self._opener(self._managed.reading)
            self._refuse_if_closed()
        return open_session()

    def begin(self) -> AbstractContextManager[S]:
        """Run one transaction: ``with sessions.begin() as session:``.

        It commits if the block ends, rolls back if it raises, and closes the session in both cases.

        Raises:
            ClosedError: the factory is closed.
        """
        open_session = self._open_to_write
        if open_session is None:
            open_session = self._open_to_write = self._opener(self._managed.engine)
            self._refuse_if_closed()
        return TransactionScope(open_session)

    @property
    def engine(self) -> Engine:
        """The SQLAlchemy engine, built once, on first use: for Alembic, ``create_all``, tools.

        Raises:
            ClosedError: the factory is closed.
        """
        return self._managed.engine

    @property
    def sessionmaker(self) -> orm.sessionmaker[S]:
        """SQLAlchemy's ``sessionmaker``, for tools that insist on one; always the same one.

        Its sessions are this factory's. Another one would have none of its guards.

        Raises:
            ClosedError: the factory is closed.
        """
        self._managed.ledger.refuse_if_closed()
        with self._making:
            if self._maker is None:
                managed, wanted = self._managed, self.settings.session
                self._maker = FactorySessionmaker(managed, self._class, wanted, TransactionScope)
                self._class = self._maker.class_
                self._open = self._open_to_write = None
            return self._maker

    @property
    def reader(self) -> SessionFactory[S]:
        """A ``SessionFactory`` whose transactions are read-only; the database enforces it.

        A write raises ``ReadOnlyError``.

        Raises:
            ClosedError: the factory is closed.
            SettingsError: this database has no read-only transactions.
        """
        opener = self._opener(self._managed.read_only)

        def open_reader() -> S:
            session = opener()
            keep_to(session, READ_ONLY)
            return session

        # A class of the user's may choose its engines itself.
        return ReadOnlySessions(opener if self.session_class is Session else open_reader)

    def ping(self, *, timeout: float = 2.0) -> Health:
        """Ping the database.

        Args:
            timeout: seconds to wait at most.

        Returns:
            what was found; a database that is down is a result, not an error. A SQLite file is
            neither made nor changed.
        """
        return self._managed.ping(timeout)

    def status(self) -> PoolStatus:
        """Return what the pool holds, and who holds its connections."""
        return self._managed.status()

    def start_close(self) -> None:
        """Refuse new sessions, and cut the connections that the caller holds itself.

        ``close`` does it first. A registry does it on all of its factories before it closes any.
        """
        self._managed.start_close()
        self._open = self._open_to_write = None

    def wait_idle(self, deadline: float) -> None:
        """Wait until no connection is out, or for the deadline, on the clock of ``monotonic``."""
        self._managed.wait_idle(deadline)

    def close(self, *, timeout: float = 10.0) -> tuple[Holder, ...]:
        """Refuse new sessions, wait for connections that are out, dispose of the engine.

        Connections that the closing thread or task holds itself are cut at once, because they
        cannot come back while it waits; others when the time is over. Sessions without a connection
        are not waited for. The server ends what is cut. Closing twice is closing once.

        Args:
            timeout: seconds to wait for connections that are out; half a second later, all are
                closed.

        Returns:
            the holders that were cut off.
        """
        self.start_close()
        return self._managed.close(timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__qualname__}(name={self.name!r}, url='{self.settings.url}')"

    def __del__(self) -> None:
        managed = getattr(self, "_managed", None)  # absent if the settings were refused
        if managed is not None and managed.built:
            message = f"{self!r} was not closed; use it as a context manager, or call close()"
            warnings.warn(message, ResourceWarning, source=self, stacklevel=1)

    def _refuse_if_closed(self) -> None:
        # An opener exists as long as the factory is open, so that no session has to check. One that
        # was made while another thread closed the factory is dropped here.
        try:
            self._managed.ledger.refuse_if_closed()
        except ClosedError:
            self._open = self._open_to_write = None
            raise

    def _opener(self, bind: Engine) -> Callable[[], S]:
        keywords: dict[str, Any] = {"bind": bind, **keywords_of(self.settings.session)}
        session_class = self._class

        def open_session() -> S:
            session = session_class(**keywords)
            note_opening(session)
            return session

        return open_session


publish(SqlAlchemySessionFactory)
