"""The end of an async transaction is finished, whatever cancels the task that waits for it.

A COMMIT that was sent happens, whether its task waits for the answer or not. So commit, rollback
and close run in a task of their own, and a cancellation is delivered when that one is done; the
``CancelledError`` then says what became of the COMMIT. Nobody waits for ever: after ``GRACE``
seconds the connection is hung up.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from contextlib import AbstractContextManager, nullcontext, suppress
from contextvars import Context
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

from sqlalchemy.exc import DBAPIError
from sqlalchemy.util.concurrency import await_only, greenlet_spawn, in_greenlet

from sessionfactory.drivers import connections, sqlalchemy_private
from sessionfactory.errors import CommitUncertainError, SessionFactoryError, note_outcome
from sessionfactory.pool.owners import running_task

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sqlalchemy import Dialect
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.orm import Session
    from sqlalchemy.pool import PoolProxiedConnection

    from sessionfactory.drivers.sqlalchemy_private import Connect

    Work = Callable[[], Awaitable[object]]
    Ends = Callable[[PoolProxiedConnection], None]

GRACE: Final = 5.0
"""Seconds that the end of a cancelled transaction may take: a server that answers at all, even one
that waits for a synchronous replica, does so in less; a caller that was cancelled waits no longer.
"""
HUNG_UP: Final = 1.0
"""Seconds until the driver has noticed that its connection is gone."""


class Ending(asyncio.Task[None]):
    """A task that ends a transaction, or a connection, and knows how far it has come.

    The caller's cancellations do not come here, but those of a loop that ends do: ``asyncio.run``
    cancels every task that there is.

    Args:
        work: what it does.
        caller: the task that waits for it.
        firm: whether it refuses to be cancelled all the time, and not only before it has begun and
            while it waits for the answer to COMMIT or ROLLBACK.
    """

    sent = answered = False
    connection: PoolProxiedConnection | None = None
    """The one that was asked to COMMIT or to ROLLBACK, last."""
    _refuses = True

    def __init__(self, work: Work, caller: asyncio.Task[object] | None, *, firm: bool) -> None:
        loop = asyncio.get_running_loop()
        self.firm = firm
        self.sessionfactory_caller: asyncio.Task[object] | None = caller
        """For whom it runs; see ``owners.current_task``."""
        self.over: asyncio.Future[None] = asyncio.Future(loop=loop)
        # Not by ``loop.create_task``, where a task factory would make a task of another class.
        name = (
            caller.get_name() if caller else None
        )  # by which messages call who holds a connection
        # In the caller's own context: what listeners set and reset there is the caller's.
        super().__init__(self._run(work), loop=loop, name=name, context=_context_of(caller))

    async def _run(self, work: Work) -> None:
        self._refuses = self.firm
        try:
            await work()
        finally:
            if not self.over.done():
                self.over.set_result(None)

    def cancel(self, msg: object = None) -> bool:
        """Request to be cancelled, which is refused at times."""
        return not self._refuses and super().cancel(msg)

    def ask(
        self, question: Callable[[PoolProxiedConnection], None], connection: PoolProxiedConnection
    ) -> None:
        """Put COMMIT or ROLLBACK to the database, and wait for the answer."""
        self.connection, self._refuses = connection, True
        try:
            question(connection)
        finally:
            self._refuses = self.firm

    def let_go(self) -> None:
        """Wait for it no longer; whoever cancels it now is obeyed, and its error is nobody's."""
        self._refuses = False
        self.add_done_callback(lambda ending: ending.cancelled() or ending.exception())

    @property
    def error(self) -> BaseException | None:
        """What it ended with; asyncio would log it if nobody asked."""
        return self.exception() if self.done() and not self.cancelled() else None


def _context_of(task: asyncio.Task[object] | None) -> Context | None:
    """Return the context in which a task runs; ``None``, for a copy, where it is not known."""
    if task is None:
        return None
    get_context: Callable[[], Context] | None = getattr(task, "get_context", None)
    if get_context is not None:  # Python 3.12
        return get_context()
    referents = (*gc.get_referents(task), getattr(task, "_context", None))
    return next((found for found in referents if isinstance(found, Context)), None)


def about_to_commit() -> None:
    """Have the ending that runs finish from here on, whatever cancels it.

    For engines that are not watched, on which nobody else knows when COMMIT is sent.
    """
    cast("Ending", running_task()).sent = True


def committing(commit: Ends) -> Ends:
    """Return a COMMIT that an ending knows of, and waits for."""

    def do_commit(connection: PoolProxiedConnection) -> None:
        ending = running_task()
        if isinstance(ending, Ending):
            ending.sent = True
            ending.ask(commit, connection)
            ending.answered = True
        else:
            commit(connection)

    return do_commit


def rolling_back(rollback: Ends) -> Ends:
    """Return a ROLLBACK that an ending waits for."""

    def do_rollback(connection: PoolProxiedConnection) -> None:
        ending = running_task()
        if isinstance(ending, Ending):
            ending.ask(rollback, connection)
        else:
            rollback(connection)

    return do_rollback


def terminating(terminate: Callable[[DBAPIConnection], None]) -> Callable[[DBAPIConnection], None]:
    """Return a way to close the connection of a cancelled statement to the end.

    SQLAlchemy closes it by force when it is cancelled in the midst of closing it in order; with
    aiosqlite, that leaves a task which waits for ever.
    """

    def do_terminate(connection: DBAPIConnection) -> None:
        if in_greenlet():
            await_only(finish(partial(greenlet_spawn, terminate, connection)))
        else:
            terminate(connection)  # for the garbage collector, which waits for nothing

    return do_terminate


def opening_to_the_end(dialect: Dialect, connect: Connect) -> Connect:
    """Return a way to connect that is not cancelled, and closes what is not wanted any more.

    The thread of aiosqlite opens a connection in any case, and then reports to the event loop,
    which may be closed by then.
    """

    def connect_to_the_end(*arguments: Any, **keywords: Any) -> DBAPIConnection:
        made: list[DBAPIConnection] = []
        try:
            work = partial(greenlet_spawn, lambda: made.append(connect(*arguments, **keywords)))
            await_only(finish(work))
        except asyncio.CancelledError:
            for connection in made:  # pragma: no branch - coverage loses sight in a greenlet
                dialect.do_terminate(connection)
            raise
        return made[0]

    return connect_to_the_end


async def finish(work: Work, session: Session | None = None, *, commits: bool = False) -> None:
    """Do what ends a transaction, all of it, even if the calling task is cancelled meanwhile.

    A cancellation is delivered when ``work`` is done. Before the COMMIT is sent, it goes through to
    ``work``; after ``GRACE`` seconds, the connection is hung up.

    Args:
        work: what ends the transaction.
        session: whose transaction it is; ``None`` if it ends something else, such as a connection.
        commits: whether it is to commit.

    Raises:
        CancelledError: the calling task was cancelled; ``commit_outcome`` reads from it what became
            of the COMMIT.
    """
    ending = Ending(work, asyncio.current_task(), firm=session is None)
    try:
        await ending.over
    except asyncio.CancelledError as cancelled:
        await _outlast(ending, session, commits=commits)
        if ending.error is not None:
            cancelled.__cause__ = ending.error
        if commits:
            _tell(cancelled, ending)
        raise
    ending.result()


async def _outlast(ending: Ending, session: Session | None, *, commits: bool) -> None:
    """Wait until a task is done, through cancellations; hang up when it takes too long."""
    if commits and not ending.sent:
        ending.cancel()
    with _alone():
        await _wait(ending, GRACE)
        if not ending.done():
            for connection in _connections(ending, session):
                connections.hang_up(connection.dbapi_connection)
            await _wait(ending, HUNG_UP)
    if not ending.done():
        ending.let_go()


async def _wait(ending: Ending, seconds: float) -> None:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while not ending.done() and loop.time() < deadline:
        # One is on its way already; ``asyncio.timeout`` and TaskGroup count them themselves.
        with suppress(asyncio.CancelledError):
            await asyncio.wait({ending}, timeout=deadline - loop.time())


def _alone() -> AbstractContextManager[Any]:
    """Return a scope that anyio does not cancel; it would again and again, at every step."""
    anyio = sys.modules.get("anyio")
    return nullcontext() if anyio is None else anyio.CancelScope(shield=True)


def _connections(ending: Ending, session: Session | None) -> list[PoolProxiedConnection]:
    """Return the connections in which a transaction is ending."""
    if ending.connection is not None:
        return [ending.connection]
    return [] if session is None else sqlalchemy_private.of_session(session)


def _tell(cancelled: BaseException, ending: Ending) -> None:
    """Have a cancellation say what became of the COMMIT."""
    error = ending.error
    if ending.answered or (ending.done() and not ending.cancelled() and error is None):
        note_outcome(cancelled, "committed", "The COMMIT that was under way has succeeded")
    elif ending.sent and (error is None or _is_lost(error)):
        uncertain = CommitUncertainError(
            "The task was cancelled while its COMMIT was under way, and no answer came within"
            f" {GRACE:g} s: the transaction may have been committed, or not. Look for what it wrote"
            " before you do it again"
        )
        uncertain.__cause__ = error
        cancelled.__cause__ = uncertain
        note_outcome(cancelled, "uncertain", "It is unknown whether the COMMIT has happened")
    else:
        note_outcome(cancelled, "rolled back", "The transaction was rolled back")


def _is_lost(error: BaseException) -> bool:
    """Say whether an error at COMMIT leaves open what the database did."""
    if isinstance(error, SessionFactoryError):
        return False  # the factory was closed before
    return not isinstance(error, DBAPIError) or error.connection_invalidated
