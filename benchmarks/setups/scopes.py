"""Sessions and transactions as users write them, with some work inside."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from sqlalchemy import text
from sqlalchemy.orm import Session

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import scoped_session


Operation = Callable[[], None]
Work = Callable[[Session], object]
Scopes = Callable[[], AbstractContextManager[Session]]
"""What gives a session for the length of a ``with`` block."""

_ONE = text("SELECT 1")


def nothing(_session: Session) -> None:
    """Leave the database alone."""


def select(session: Session) -> object:
    """Run one statement, of which the database has next to nothing to do."""
    return session.execute(_ONE).scalar_one()


def connect(session: Session) -> object:
    """Take a connection from the pool, and send nothing."""
    return session.connection()


async def select_async(session: AsyncSession) -> object:
    """Async twin of ``select``."""
    return (await session.execute(_ONE)).scalar_one()


def scope(scopes: Scopes, work: Work) -> Operation:
    """Return what works in one ``with`` block."""

    def run() -> None:
        with scopes() as session:
            work(session)

    return run


def opened_by_registry(sessions: scoped_session[Session], work: Work) -> Operation:
    """Return what works with the session of this thread, and removes it."""

    def run() -> None:
        try:
            work(sessions())
        finally:
            sessions.remove()

    return run


def begun_by_registry(sessions: scoped_session[Session], work: Work) -> Operation:
    """Return what works in one transaction of this thread's session, and removes that."""

    def run() -> None:
        try:
            with sessions.begin():
                work(sessions())
        finally:
            sessions.remove()

    return run
