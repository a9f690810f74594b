# pyright: reportUnnecessaryTypeIgnoreComment=true
"""The async concrete factory as a type checker sees it; checked by mypy and pyright, never run."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import assert_type

from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session

from sessionfactory import (
    AsyncSessionFactory,
    AsyncSqlAlchemySessionFactory,
    DatabaseSettings,
    Health,
    Holder,
    PoolStatus,
)


class MySession(AsyncSession):
    """A session class of a user's own."""


async def default_session_class(settings: DatabaseSettings) -> None:
    """Without a session class it makes plain sessions."""
    factory = AsyncSqlAlchemySessionFactory(settings)
    assert_type(factory, AsyncSqlAlchemySessionFactory[AsyncSession])
    assert_type(factory, AsyncSqlAlchemySessionFactory)
    assert_type(factory(), AsyncSession)
    assert_type(factory.begin(), AbstractAsyncContextManager[AsyncSession])
    assert_type(factory.reader, AsyncSessionFactory[AsyncSession])
    async with factory() as session:
        assert_type(session, AsyncSession)
    async with factory.begin() as session:
        assert_type(session, AsyncSession)
    async with factory.reader.begin() as session:
        assert_type(session, AsyncSession)
    interface: AsyncSessionFactory = factory
    interface()


async def own_session_class(settings: DatabaseSettings) -> None:
    """The factory is generic in its session class."""
    factory = AsyncSqlAlchemySessionFactory(settings, session_class=MySession)
    assert_type(factory, AsyncSqlAlchemySessionFactory[MySession])
    assert_type(factory(), MySession)
    assert_type(factory.reader, AsyncSessionFactory[MySession])
    assert_type(factory.session_class, type[MySession])
    async with factory.begin() as session:
        assert_type(session, MySession)
    own: AsyncSessionFactory[MySession] = factory
    plain: AsyncSessionFactory = factory
    own()
    plain()


async def members(settings: DatabaseSettings) -> None:
    """What the concrete class has beyond the interface."""
    factory = AsyncSqlAlchemySessionFactory(settings, name="analytics")
    assert_type(factory.settings, DatabaseSettings)
    assert_type(factory.name, str)
    assert_type(factory.engine, AsyncEngine)
    assert_type(await factory.ping(), Health)
    assert_type(await factory.ping(timeout=1), Health)
    assert_type(factory.status(), PoolStatus)
    assert_type(await factory.aclose(), tuple[Holder, ...])
    assert_type(await factory.aclose(timeout=0.5), tuple[Holder, ...])
    async with AsyncSqlAlchemySessionFactory(settings, session_class=MySession) as entered:
        assert_type(entered, AsyncSqlAlchemySessionFactory[MySession])


async def code_after_a_block_is_reachable(factory: AsyncSqlAlchemySessionFactory) -> int:
    """Neither block swallows an error, so that a function may end inside one."""
    async with factory, factory.begin():
        return 1


async def refused(settings: DatabaseSettings, factory: AsyncSqlAlchemySessionFactory) -> None:
    """What the concrete class does not take."""
    AsyncSqlAlchemySessionFactory()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    AsyncSqlAlchemySessionFactory("sqlite://")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    AsyncSqlAlchemySessionFactory(settings, "name")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    AsyncSqlAlchemySessionFactory(settings, pool_size=5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    AsyncSqlAlchemySessionFactory(settings, session_class=Session)  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]
    AsyncSqlAlchemySessionFactory(settings, session_class=AsyncSession())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await factory.ping(2.0)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await factory.aclose(2.0)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    factory.engine = factory.engine  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    factory(expire_on_commit=True)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    own: AsyncSessionFactory[MySession] = factory  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    own()
