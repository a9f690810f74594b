"""Async twin of ``rollback``: a session factory for tests whose work is undone.

async with AsyncRollbackSessionFactory(sessions) as fake:
    await Signup(fake).register("ada@example.org")
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Generic, Self, TypeVar, cast

import attrs
from sqlalchemy.util.concurrency import greenlet_spawn

from sessionfactory.drivers.asyncio_ext import AsyncConnection, AsyncEngine, AsyncSession
from sessionfactory.sessions.scope_async import A, AsyncTransactionScope
from sessionfactory.testing.rollback._engines import engine_behind
from sessionfactory.testing.rollback._open_transactions import (
    OpenTransactions,
    raise_problem,
    require_not_entered,
    require_open,
)
from sessionfactory.testing.rollback._sessions import bind_session

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

    from sessionfactory.interfaces import AsyncSessionFactory

R = TypeVar("R")


@attrs.define(eq=False)
class AsyncRollbackSessionFactory(Generic[A]):
    """Async twin of ``RollbackSessionFactory``, for one event loop.

    Tasks may use it one after the other; a second one that comes while another is inside a call
    gets ``ConcurrentUseError``.

    Args:
        sessions: the factory, or the engine, of the real sessions; the caller closes it.
    """

    _sessions: AsyncSessionFactory[A] | AsyncEngine
    _transactions: OpenTransactions | None = attrs.field(init=False, default=None, repr=False)
    _connection: AsyncConnection | None = attrs.field(init=False, default=None, repr=False)

    def __call__(self) -> A:
        """Return a new session; the caller closes it: ``async with fake() as session:``."""
        transactions = require_open(self._transactions)
        session = self._open_real()
        bind_session(session.sync_session, transactions)
        session.bind = self._connection
        return session

    def begin(self) -> AbstractAsyncContextManager[A]:
        """Run one transaction; its commit is visible to the fake's sessions only."""
        return AsyncTransactionScope(self)

    @property
    def reader(self) -> AsyncSessionFactory[A]:
        """This fake itself, as in the sync half."""
        return self

    @asynccontextmanager
    async def savepoint(self) -> AsyncGenerator[Self]:
        """Undo at the end of a block what is done in it, as in the sync half."""
        transactions = require_open(self._transactions)
        made = await greenlet_spawn(transactions.open_savepoint)
        try:
            yield self
        except BaseException as error:
            raise_problem(await _to_the_end(transactions.undo_to, made), error)
            raise
        raise_problem(await _to_the_end(transactions.undo_to, made), None)

    async def __aenter__(self) -> Self:
        require_not_entered(self._transactions)
        sync_engine = engine_behind(self._sessions, is_async=True)
        self._transactions = await greenlet_spawn(OpenTransactions, sync_engine)
        self._connection = AsyncConnection(
            AsyncEngine(self._transactions.connection.engine), self._transactions.connection
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        transactions = require_open(self._transactions)
        self._transactions = self._connection = None
        raise_problem(await _to_the_end(transactions.finish), error)

    def _open_real(self) -> A:
        if isinstance(self._sessions, AsyncEngine):
            return cast("A", AsyncSession(self._sessions))  # ``A`` is then its default
        return self._sessions()


async def _to_the_end(work: Callable[..., R], *args: object) -> R:
    """Run work in a greenlet; as in SQLAlchemy, a cancellation of this task does not stop it."""
    return await asyncio.shield(asyncio.create_task(greenlet_spawn(work, *args)))
