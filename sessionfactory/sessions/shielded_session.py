"""Async sessions whose transactions end, whatever cancels the task that ends them."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from types import new_class
from typing import TYPE_CHECKING, Self, cast

from sqlalchemy.util.concurrency import greenlet_spawn
from typing_extensions import TypeVar

from sessionfactory.drivers.asyncio_ext import AsyncSession, AsyncSessionTransaction
from sessionfactory.errors import SharedSessionError, note_outcome
from sessionfactory.pool.shielded import Ending, finish
from sessionfactory.sessions.guarded_session import guarded

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

    from sqlalchemy.orm import Session

    from sessionfactory.pool.shielded import Work
    from sessionfactory.sessions.guarded_session import GuardedSession

A = TypeVar("A", bound=AsyncSession, default=AsyncSession)
T = TypeVar("T")


class _LastingTransaction(AsyncSessionTransaction):
    """What ``session.begin()`` gives: its COMMIT is finished before a cancellation is delivered."""

    __slots__ = ()

    async def commit(self) -> None:
        await self._finish(super().commit, commits=True)

    async def rollback(self) -> None:
        await self._finish(super().rollback)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        end = partial(super().__aexit__, kind, error, traceback)
        await self._finish(end, commits=kind is None)

    async def _finish(self, end: Work, *, commits: bool = False) -> None:
        await end_session(end, self.session.sync_session, commits=commits and not self.nested)


class _Lasting(AsyncSession):
    """Stands between the session class of a factory and SQLAlchemy's.

    What the user's class overrides so runs in the task that calls it, like all of the user's code,
    and can set itself a timeout there.
    """

    def begin(self) -> AsyncSessionTransaction:
        return _LastingTransaction(self)

    def begin_nested(self) -> AsyncSessionTransaction:
        return _LastingTransaction(self, nested=True)

    async def commit(self) -> None:
        await end_session(super().commit, self.sync_session, commits=True)

    async def rollback(self) -> None:
        await end_session(super().rollback, self.sync_session)

    async def close(self) -> None:
        await self._give_back(super().close)

    async def reset(self) -> None:
        await self._give_back(super().reset)

    async def __aenter__(self) -> Self:
        cast("GuardedSession", self.sync_session).sessionfactory_enter_scope()
        return await super().__aenter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            await self.close()
        except SharedSessionError:
            if kind is None:
                raise

    async def _give_back(self, end: Work) -> None:
        if self.sync_session.in_transaction():
            await end_session(end, self.sync_session)
        else:
            await end()  # which has no connection to give back, and waits for nothing


def end_session(end: Work, session: Session, *, commits: bool = False) -> Awaitable[object]:
    """Finish a commit, a rollback or a close in the caller's stead; see ``endings.finish``."""
    caller = asyncio.current_task()
    if isinstance(caller, Ending):  # a function that runs after a commit ends another transaction
        return end()
    return finish(end, session, commits=commits)


async def run_scope(session: AsyncSession, work: Callable[[Session], T]) -> T:
    """Run a transaction with a plain function as its block, in one greenlet; close the session.

    It all runs in one task in the caller's stead: a cancellation strikes the work, but not COMMIT.
    """
    sync_session = session.sync_session
    theirs = overrides_close(session)
    results: list[T] = []

    def scope() -> None:
        try:
            with sync_session.begin():
                results.append(work(sync_session))
        finally:
            if not theirs:
                sync_session.close()

    committed = False
    try:
        await end_session(partial(greenlet_spawn, scope), sync_session, commits=True)
        committed = True
    finally:
        if theirs:
            await close_own(session, committed=committed)
    return results[0]


async def close_own(session: AsyncSession, *, committed: bool, failed: bool = False) -> None:
    """Call a session's own ``close()``; an error from it has the outcome of the commit before.

    Args:
        session: the session.
        committed: whether its transaction is committed.
        failed: whether an error is raised, which a refused close must not replace.
    """
    try:
        if failed:
            with suppress(SharedSessionError):
                await session.close()
        else:
            await session.close()
    except BaseException as error:
        if committed:
            note_outcome(error, "committed", "The transaction is committed")
        raise


def lasting(session_class: type[A]) -> type[A]:
    """Return a class of sessions that finish commit, rollback and close when they are cancelled.

    And that refuse to be shared: see ``guarded``.

    Args:
        session_class: the class of the sessions; what it overrides itself still runs.
    """
    bases = (_Lasting,) if session_class is AsyncSession else (session_class, _Lasting)
    made = cast("type[A]", new_class(session_class.__name__, bases))
    for name in ("__module__", "__qualname__", "__doc__"):
        setattr(made, name, getattr(session_class, name))
    made.sync_session_class = guarded(session_class.sync_session_class)
    return made


def overrides_close(session: AsyncSession) -> bool:
    """Say whether a session's class has a ``close()`` of its own, which has to be called."""
    close = type(session).close
    return close is not _Lasting.close and close is not AsyncSession.close
