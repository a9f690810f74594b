"""What a service depends on: the interface of a session factory, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from typing_extensions import TypeVar

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager, AbstractContextManager

    # Only for type checkers: whoever depends on the interface need not load SQLAlchemy for it.
    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import Session

S_co = TypeVar("S_co", covariant=True, default="Session")
A_co = TypeVar("A_co", covariant=True, default="AsyncSession")


class SessionFactory(Protocol[S_co]):
    """Opens sessions and transactions; the one thing that a service asks for.

    It has the shape of SQLAlchemy's ``sessionmaker``, so that a plain ``sessionmaker`` is one.
    ``SessionFactory`` alone means ``SessionFactory[Session]``. A second database, in a container
    that resolves by type, is a sub-protocol: ``class Analytics(SessionFactory, Protocol): ...``.

    For implementers: both methods may be called from several threads at once, and each call
    answers with a session of its own. ``sessionfactory.testing.check_session_factory`` checks the
    rest. The interface is not ``runtime_checkable``: ``isinstance`` cannot tell sync from async.
    """

    def __call__(self) -> S_co:
        """Return a new session; the caller closes it: ``with sessions() as session:``."""
        ...

    def begin(self) -> AbstractContextManager[S_co]:
        """Run one transaction: ``with sessions.begin() as session:``.

        It commits if the block ends, rolls back if it raises, and closes the session in both cases.
        """
        ...


class AsyncSessionFactory(Protocol[A_co]):
    """Async twin of ``SessionFactory``; SQLAlchemy's ``async_sessionmaker`` is one.

    ``AsyncSessionFactory`` alone means ``AsyncSessionFactory[AsyncSession]``.

    For implementers: each call answers with a session of its own, for one task.
    """

    def __call__(self) -> A_co:
        """Return a new session; the caller closes it: ``async with sessions() as session:``."""
        ...

    def begin(self) -> AbstractAsyncContextManager[A_co]:
        """Run one transaction: ``async with sessions.begin() as session:``.

        It commits if the block ends, rolls back if it raises, and closes the session in both cases.
        """
        ...


def makes_sessions(given: object) -> bool:
    """Return whether something has the members of a session factory; a session has not."""
    return callable(given) and callable(getattr(given, "begin", None))
