# pyright: reportUnnecessaryTypeIgnoreComment=true
"""What clones databases as a type checker sees it, both halves; checked, never run."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_type

from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from sessionfactory import (
    AsyncSessionFactory,
    AsyncSqlAlchemySessionFactory,
    DatabaseSettings,
    SessionFactory,
    SqlAlchemySessionFactory,
)
from sessionfactory.testing import AsyncCloningSessionFactory, CloningSessionFactory

if TYPE_CHECKING:
    from sqlalchemy import Engine, MetaData
    from sqlalchemy.ext.asyncio import AsyncEngine


class MySession(Session):
    """A session class of a user's own."""


class MyAsyncSession(AsyncSession):
    """Its twin."""


def seed(session: Session) -> int:
    """Put rows into the tables; what is returned does not matter."""
    return len(session.new)


def prepare(engine: Engine) -> None:
    """Make the tables."""


async def prepare_async(engine: AsyncEngine) -> None:
    """Make the tables."""


def sync_half(metadata: MetaData, settings: DatabaseSettings) -> None:
    """A clone is a factory of the given session class."""
    with CloningSessionFactory("sqlite://", metadata, seed=seed, ahead=0) as cloning:
        assert_type(cloning, CloningSessionFactory[Session])
        with cloning.clone() as sessions:
            assert_type(sessions, SqlAlchemySessionFactory[Session])
            interface: SessionFactory = sessions
            interface()
    own = CloningSessionFactory(settings, prepare, session_class=MySession)
    assert_type(own, CloningSessionFactory[MySession])
    own.close()
    CloningSessionFactory(settings, metadata, session_class=AsyncSession)  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]
    CloningSessionFactory(settings)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


async def async_half(metadata: MetaData, settings: DatabaseSettings) -> None:
    """Its twin; the seed is the same plain function."""
    async with AsyncCloningSessionFactory("sqlite://", metadata, seed=seed, ahead=0) as cloning:
        assert_type(cloning, AsyncCloningSessionFactory[AsyncSession])
        async with cloning.clone() as sessions:
            assert_type(sessions, AsyncSqlAlchemySessionFactory[AsyncSession])
            interface: AsyncSessionFactory = sessions
            interface()
    own = AsyncCloningSessionFactory(settings, prepare_async, session_class=MyAsyncSession)
    assert_type(own, AsyncCloningSessionFactory[MyAsyncSession])
    await own.aclose()
    AsyncCloningSessionFactory(settings, prepare)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    AsyncCloningSessionFactory(settings, metadata, session_class=Session)  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]
