"""The async factory: sessions and transactions on an engine that it owns."""

from __future__ import annotations

import threading
import warnings
from typing import TYPE_CHECKING, Any, Generic, Self

import attrs
from sqlalchemy.util.concurrency import greenlet_spawn

from sessionfactory._lazy import publish
from sessionfactory.config.hide_arguments import unseen
from sessionfactory.config.settings import DatabaseSettings
from sessionfactory.drivers.asyncio_ext import AsyncEngine, AsyncSession, async_sessionmaker
from sessionfactory.engine.managed import ManagedEngine
from sessionfactory.engine.views.views import READ_ONLY, keep_to
from sessionfactory.errors import ClosedError, Fault, SettingsError
from sessionfactory.pool.call_sites import note_opening
from sessionfactory.sessions.refusals import refuse_class
from sessionfactory.sessions.scope_async import A, AsyncReadOnlySessions, AsyncTransactionScope
from sessionfactory.sessions.session_maker import keywords_of
from sessionfactory.sessions.session_maker_async import AsyncFactorySessionmaker
from sessionfactory.sessions.shielded_session import (
    lasting,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from sqlalchemy import Engine

    from sessionfactory.interfaces import AsyncSessionFactory
    from sessionfactory.status import Health, Holder, PoolStatus


@unseen
@attrs.define(eq=False, repr=False)
class AsyncSqlAlchemySessionFactory(Generic[A]):
    """Async twin of ``SqlAlchemySessionFactory``; ``aclose()`` for ``close()``.

    A COMMIT that was sent is finished before a cancellation of its task is delivered, and the error
    holds the outcome: ``commit_outcome(error)``. The pool belongs to the event loop that uses it
    first; in another loop it is replaced if that one has ended, and refused if it still runs.

    Args:
        settings: the database; the same as for the sync half.
        name: what messages call it.
        session_class: the class of the sessions.

    Raises:
        SettingsError: no engine could be built from these settings, or greenlet is not installed.
        TypeError: ``session_class`` is no class of sessions.
    """

    settings: DatabaseSettings = attrs.field(repr=False)
    name: str = attrs.field(default="default", kw_only=True)
    # Type checkers take ``A`` from the argument; where there is none, its default is this class.
    session_class: type[A] = attrs.field(  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
        default=AsyncSession, kw_only=True, repr=False
    )
    _managed: ManagedEngine = attrs.field(init=False, repr=False)
    _class: type[A] = attrs.field(init=False, repr=False)
    _engine: AsyncEngine | None = attrs.field(init=False, default=None, repr=False)
    _maker: AsyncFactorySessionmaker[A] | None = attrs.field(init=False, default=None, repr=False)
    _making: threading.Lock = attrs.field(init=False, factory=threading.Lock, repr=False)
    _open: Callable[[], A] | None = attrs.field(init=False, default=None, repr=False)
    _open_to_write: Callable[[], A] | None = attrs.field(init=False, default=None, repr=False)

    def __attrs_post_init__(self) -> None:
        # Types forbid it; an untyped caller gets a sentence, which does not quote the URL.
        if not isinstance(self.settings, DatabaseSettings):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise SettingsError([Fault("", "expected DatabaseSettings: DatabaseSettings(url)")])
        refuse_class(self.session_class, AsyncSession)
        self._managed = ManagedEngine(self.settings, self.name, is_async=True)
        self._class = lasting(self.session_class)

    def __call__(self) -> A:
        """Return a new session; the caller closes it: ``async with sessions() as session:``.

        Raises:
            ClosedError: the factory is closed.
        """
        open_session = self._open
        if open_session is None:
            open_session = self._open = self._opener(self._managed.reading)
            self._refuse_if_closed()
        return open_session()

    def begin(self) -> AbstractAsyncContextManager[A]:
        """Run one transaction: ``async with sessions.begin() as session:``.

        It commits if the block ends, rolls back if it raises, and closes the session in both cases.

        Raises:
            ClosedError: the factory is closed.
        """
        open_session = self._open_to_write
        if open_session is None:
            open_session = self._open_to_write = self._opener(self._managed.engine)
            self._refuse_if_closed()
        return AsyncTransactionScope(open_session)

    @property
    def engine(self) -> AsyncEngine:
        """The SQLAlchemy engine, built once, on first use: for Alembic, ``create_all``, tools.

        Raises:
            ClosedError: the factory is closed.
        """
        sync_engine = self._managed.engine
        if self._engine is None:
            self._engine = AsyncEngine(sync_engine)
        return self._engine

    @property
    def sessionmaker(self) -> async_sessionmaker[A]:
        """SQLAlchemy's ``async_sessionmaker``, for tools that insist on one; always the same one.

        Its sessions are this factory's. Another one would have none of its guards.

        Raises:
            ClosedError: the factory is closed.
        """
        self._managed.ledger.refuse_if_closed()
        with self._making:
            if self._maker is None:
                managed, wanted = self._managed, self.settings.session
                self._maker = AsyncFactorySessionmaker(
                    managed, self._class, wanted, AsyncTransactionScope
                )
                self._class = self._maker.class_
                self._open = self._open_to_write = None
            return self._maker

    @property
    def reader(self) -> AsyncSessionFactory[A]:
        """An ``AsyncSessionFactory`` whose transactions are read-only; the database enforces it.

        A write raises ``ReadOnlyError``.

        Raises:
            ClosedError: the factory is closed.
            SettingsError: this database has no read-only transactions.
        """
        opener = self._opener(self._managed.read_only)

        def open_reader() -> A:
            session = opener()
            keep_to(session.sync_session, READ_ONLY)
            return session

        # A class of the user's may choose its engines itself.
        return AsyncReadOnlySessions(opener if self.session_class is AsyncSession else open_reader)

    async def ping(self, *, timeout: float = 2.0) -> Health:
        """Ping the database.

        Args:
            timeout: seconds to wait at most.

        Returns:
            what was found; a database that is down is a result, not an error. A SQLite file is
            neither made nor changed.
        """
        return await greenlet_spawn(self._managed.ping, timeout)

    def status(self) -> PoolStatus:
        """Return what the pool holds, and who holds its connections."""
        return self._managed.status()

    def start_close(self) -> None:
        """Refuse new sessions, and cut the connections that the caller holds itself.

        In a greenlet of SQLAlchemy's. ``aclose`` does it first.
        """
        self._managed.start_close()
        self._open = self._open_to_write = self._engine = None

    async def wait_idle(self, deadline: float) -> None:
        """Wait until no connection is out, or for the deadline, on the clock of ``monotonic``."""
        await greenlet_spawn(self._managed.wait_idle, deadline)

    async def aclose(self, *, timeout: float = 10.0) -> tuple[Holder, ...]:
        """Refuse new sessions, wait for connections that are out, dispose of the engine.

        Connections that the closing thread or task holds itself are cut at once, because they
        cannot come back while it waits; others when the time is over. Sessions without a connection
        are not waited for. The server ends what is cut. Closing twice is closing once.

        Args:
            timeout: seconds to wait for connections that are out; half a second later, all are
                closed.

        Returns:
            the holders that were cut off.

        Raises:
            EventLoopError: the factory is in use in another event loop, which still runs.
        """
        await greenlet_spawn(self.start_close)
        return await greenlet_spawn(self._managed.close, timeout)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"{type(self).__qualname__}(name={self.name!r}, url='{self.settings.url}')"

    def __del__(self) -> None:
        managed = getattr(self, "_managed", None)  # absent if the settings were refused
        if managed is not None and managed.built:
            message = f"{self!r} was not closed; use it as a context manager, or call aclose()"
            warnings.warn(message, ResourceWarning, source=self, stacklevel=1)

    def _refuse_if_closed(self) -> None:
        # An opener exists as long as the factory is open, so that no session has to check. One that
        # was made while another thread closed the factory is dropped here.
        try:
            self._managed.ledger.refuse_if_closed()
        except ClosedError:
            self._open = self._open_to_write = None
            raise

    def _opener(self, bind: Engine) -> Callable[[], A]:
        keywords: dict[str, Any] = {"bind": AsyncEngine(bind), **keywords_of(self.settings.session)}
        session_class = self._class

        def open_session() -> A:
            session = session_class(**keywords)
            note_opening(session.sync_session)
            return session

        return open_session


publish(AsyncSqlAlchemySessionFactory)
