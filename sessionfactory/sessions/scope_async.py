"""The scopes of async transactions, and the reader's sessions."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Generic, Never

import attrs
from sqlalchemy.util.concurrency import greenlet_spawn
from typing_extensions import TypeVar

from sessionfactory.drivers.asyncio_ext import AsyncSession
from sessionfactory.sessions.shielded_session import (
    close_own,
    end_session,
    overrides_close,
    run_scope,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

    from sqlalchemy.orm import Session, SessionTransaction

A = TypeVar("A", bound=AsyncSession, default=AsyncSession)
T = TypeVar("T")


def _entered() -> Never:
    raise RuntimeError("a transaction scope is entered once; call begin() for another")


class AsyncTransactionScope(Generic[A]):
    """Async twin of ``TransactionScope``: ``async with sessions.begin() as session:``.

    Its end is one greenlet in one task, where ``async_sessionmaker.begin`` has two in turn, and is
    finished even if the task that waits for it is cancelled.
    """

    __slots__ = ("_open", "_session", "_transaction")

    _session: A
    _transaction: SessionTransaction

    def __init__(self, open_session: Callable[[], A]) -> None:
        self._open = open_session

    async def __aenter__(self) -> A:
        open_session, self._open = self._open, _entered
        session = self._session = open_session()
        try:
            if session.sync_session.dispatch.after_transaction_create:
                await greenlet_spawn(self._begin)  # what listens may await something
            else:
                self._begin()
        except BaseException:
            await session.close()
            raise
        return session

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        theirs = overrides_close(self._session)
        leave = self._transaction.__exit__ if theirs else self._end
        end = partial(greenlet_spawn, leave, kind, error, traceback)
        committed = False
        try:
            await end_session(end, self._session.sync_session, commits=kind is None)
            committed = kind is None
        finally:
            if theirs:
                await close_own(self._session, committed=committed, failed=kind is not None)

    async def run_sync(self, work: Callable[[Session], T]) -> T:
        """Run the transaction with a plain function as its block, all of it in one greenlet.

        That is instead of ``async with``; see ``run_sync_in_transaction``.
        """
        open_session, self._open = self._open, _entered
        return await run_scope(open_session(), work)

    def _begin(self) -> None:
        self._transaction = self._session.sync_session.begin()
        self._transaction.__enter__()

    def _end(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self._transaction.__exit__(kind, error, traceback)
        finally:
            self._session.sync_session.__exit__(kind, error, traceback)


@attrs.define(eq=False)
class AsyncReadOnlySessions(Generic[A]):
    """Async twin of ``ReadOnlySessions``: a factory's ``reader``."""

    _open: Callable[[], A] = attrs.field(repr=False)

    def __call__(self) -> A:
        """Return a new session; the caller closes it."""
        return self._open()

    def begin(self) -> AbstractAsyncContextManager[A]:
        """Run one read-only transaction."""
        return AsyncTransactionScope(self._open)
