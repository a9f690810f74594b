"""The async half of ``sessionfactory.testing.memory``, on ``aiosqlite``."""

from __future__ import annotations

import asyncio
import time
import warnings
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Generic, Self, cast

from attrs import frozen
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool
from sqlalchemy.util import greenlet_spawn
from typing_extensions import TypeVar

from sessionfactory.engine import readonly, sqlite
from sessionfactory.engine.drain import drain
from sessionfactory.engine.errors import unwrap
from sessionfactory.engine.ledger import Ledger
from sessionfactory.engine.pools import LedgerQueuePool
from sessionfactory.status import Health, Holder, PoolStatus
from sessionfactory.testing._image import Image, in_memory
from sessionfactory.testing.memory import InMemorySessionFactory

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from contextlib import AbstractAsyncContextManager

    from sqlalchemy import Engine, MetaData
    from sqlalchemy.orm import Session

    from sessionfactory.interfaces import AsyncSessionFactory
    from sessionfactory.settings import DatabaseSettings

A = TypeVar("A", bound=AsyncSession, default=AsyncSession)


class _Pool(LedgerQueuePool, AsyncAdaptedQueuePool):
    """SQLAlchemy's pool for asyncio, keeping our books."""


class AsyncInMemorySessionFactory(Generic[A]):
    """Async twin of ``InMemorySessionFactory``; ``aclose()`` for ``close()``.

    The tables and rows are prepared without ``aiosqlite``, when the factory is made: ``seed`` is a
    plain function over a plain ``Session``, the same for both halves.
    """

    def __init__(
        self,
        metadata: MetaData,
        *,
        seed: Callable[[Session], object] | None = None,
        # As in the sync factory, which says why.
        session_class: type[A] = AsyncSession,  # type: ignore[assignment]  # pyright: ignore[reportArgumentType]
        settings: DatabaseSettings | None = None,
        name: str = "memory",
    ) -> None:
        self.name = name
        self.session_class = session_class
        self.settings: DatabaseSettings = in_memory(settings)
        with InMemorySessionFactory(
            metadata, seed=seed, settings=self.settings, name=name
        ) as prepared:
            content = prepared._image.content  # noqa: SLF001 - its twin
        self._image = Image(name, self.settings.sqlite, content)
        self._ledger = Ledger(name, 1, 1, in_memory=True)
        self._engine = self._build()

    def _build(self) -> AsyncEngine:
        options = self._image.options(self.settings)
        engine = create_async_engine(
            "sqlite+aiosqlite://",
            poolclass=_Pool,
            pool_size=1,
            max_overflow=0,
            pool_timeout=self.settings.pool.timeout,
            echo=self.settings.echo,
            **options,
        )
        cast("_Pool", engine.pool).ledger = self._ledger
        event.listen(engine.sync_engine, "handle_error", unwrap, retval=True)
        readonly.enforce(engine.sync_engine)
        sqlite.prepare(engine.sync_engine, self.settings.sqlite, self.name)
        self._ledger.keep(engine.pool)
        self._ledger.keep_opened(engine.pool)
        return engine

    def __repr__(self) -> str:
        return f"{type(self).__qualname__}(name={self.name!r})"

    def __call__(self) -> A:
        """Return a new session; the caller closes it: ``async with sessions() as session:``.

        Raises:
            ClosedError: the factory is closed.
        """
        return self._opener(sqlite.deferred(self.engine.sync_engine))()

    def begin(self) -> AbstractAsyncContextManager[A]:
        """Run one transaction: ``async with sessions.begin() as session:``.

        It commits if the block ends, rolls back if it raises, and closes the session in both cases.

        Raises:
            ClosedError: the factory is closed.
        """
        return _transaction(self._opener(self.engine.sync_engine))

    @property
    def engine(self) -> AsyncEngine:
        """The SQLAlchemy engine; ``ClosedError`` after ``aclose()``."""
        self._ledger.refuse_if_closed()
        return self._engine

    @property
    def reader(self) -> AsyncSessionFactory[A]:
        """An ``AsyncSessionFactory`` whose transactions are read-only: ``ReadOnlyError``."""
        return _ReadOnlySessions(self._opener(readonly.read_only(self.engine.sync_engine)))

    async def ping(self, *, timeout: float = 2.0) -> Health:  # noqa: ARG002, ASYNC109 - the interface's
        """Return that the database is well: it is in memory; or that the factory is closed."""
        if self._ledger.closed:
            return Health("closed", None, f"The session factory {self.name!r} is closed")
        return Health("ok", 0.0, "in memory")

    def status(self) -> PoolStatus:
        """Return what the pool holds, and who holds its connection."""
        return self._ledger.status()

    async def reset(self) -> None:
        """Return to the prepared tables and rows.

        Raises:
            IsolationError: a session is open.
            ClosedError: the factory is closed.
        """
        self._image.expect_connection(self.status().holders)
        async with self.engine.connect() as connection:
            if not self._image.restore():
                await connection.invalidate()

    async def aclose(self, *, timeout: float = 10.0) -> tuple[Holder, ...]:  # noqa: ASYNC109 - the interface's
        """Refuse new sessions, wait for the connection if it is out, dispose of the engine.

        Returns:
            the holder that was cut off, if there was one: this task's at once, others' in time.
        """
        deadline = time.monotonic() + timeout
        self._ledger.closed = True
        task = asyncio.current_task()
        others = tuple(hold for hold in self._ledger.holds if hold.task is not task)
        if others:  # it waits as threads do, and the task that has the connection must go on
            await asyncio.to_thread(self._ledger.wait_until, deadline, others)
        # What is closed over its holder's head is closed by awaiting, as everything here.
        cut = await greenlet_spawn(drain, self._ledger, time.monotonic())
        await self._engine.dispose()
        return cut

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __del__(self) -> None:
        ledger = getattr(self, "_ledger", None)  # absent if the metadata was refused
        if ledger is not None and not ledger.closed and ledger.status().size:
            message = f"{self!r} was not closed; use it as a context manager, or call aclose()"
            warnings.warn(message, ResourceWarning, source=self, stacklevel=1)

    def _opener(self, bind: Engine) -> Callable[[], A]:
        session = self.settings.session
        return partial(
            self.session_class,
            AsyncEngine(bind),
            autoflush=session.autoflush,
            expire_on_commit=session.expire_on_commit,
        )


@frozen
class _ReadOnlySessions(Generic[A]):
    """The ``reader``."""

    _open: Callable[[], A]

    def __call__(self) -> A:
        return self._open()

    def begin(self) -> AbstractAsyncContextManager[A]:
        return _transaction(self._open)


@asynccontextmanager
async def _transaction(open_session: Callable[[], A]) -> AsyncGenerator[A]:
    async with open_session() as session, session.begin():
        yield session
