"""Async twin of ``rollback``: a session factory for tests whose work is undone.

async with AsyncRollbackSessionFactory(sessions) as fake:
    await Signup(fake).register("ada@example.org")
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Generic, Self, cast

import attrs
from sqlalchemy.util.concurrency import greenlet_spawn

from sessionfactory.drivers.asyncio_ext import AsyncConnection, AsyncEngine, AsyncSession
from sessionfactory.sessions.scope_async import A, AsyncTransactionScope
from sessionfactory.testing.rollback._engines import engine_behind
from sessionfactory.testing.rollback._open_transactions import (
    Undone,
    refuse_second_block,
    running,
    told,
)
from sessionfactory.testing.rollback._sessions import adopt

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

    from sessionfactory.interfaces import AsyncSessionFactory


@attrs.define(eq=False)
class AsyncRollbackSessionFactory(Generic[A]):
    """Async twin of ``RollbackSessionFactory``, for one event loop.

    Tasks may use it one after the other; a second one that comes while another is inside a call
    gets ``ConcurrentUseError``.

    Args:
        sessions: the factory, or the engine, of the real sessions; the caller closes it.
    """

    _sessions: AsyncSessionFactory[A] | AsyncEngine
    _undone: Undone | None = attrs.field(init=False, default=None, repr=False)
    _connection: AsyncConnection | None = attrs.field(init=False, default=None, repr=False)

    def __call__(self) -> A:
        """Return a new session; the caller closes it: ``async with fake() as session:``."""
        undone = running(self._undone)
        session = self._open_real()
        adopt(session.sync_session, undone)
        session.bind = self._connection
        return session

    def begin(self) -> AbstractAsyncContextManager[A]:
        """Run one transaction; its commit is seen by the fake's sessions, and by nobody else."""
        return AsyncTransactionScope(self)

    @property
    def reader(self) -> AsyncSessionFactory[A]:
        """This fake itself, as in the sync half."""
        return self

    async def __aenter__(self) -> Self:
        refuse_second_block(self._undone)
        sync_engine = engine_behind(self._sessions, is_async=True)
        self._undone = await greenlet_spawn(Undone, sync_engine)
        self._connection = AsyncConnection(
            AsyncEngine(self._undone.connection.engine), self._undone.connection
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        undone = running(self._undone)
        self._undone = self._connection = None
        # As SQLAlchemy does: a task that is cancelled here still gives its connection back.
        finishing = asyncio.create_task(greenlet_spawn(undone.finish))
        told(await asyncio.shield(finishing), error)

    def _open_real(self) -> A:
        if isinstance(self._sessions, AsyncEngine):
            return cast("A", AsyncSession(self._sessions))  # ``A`` is then its default
        return self._sessions()
