# pyright: reportUnnecessaryTypeIgnoreComment=true
"""The concrete factory as a type checker sees it; checked by mypy and pyright, never run."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import assert_type

from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from sessionfactory import (
    DatabaseSettings,
    Health,
    Holder,
    PoolStatus,
    SessionFactory,
    SqlAlchemySessionFactory,
)


class MySession(Session):
    """A session class of a user's own."""


def default_session_class(settings: DatabaseSettings) -> None:
    """Without a session class it makes plain sessions."""
    factory = SqlAlchemySessionFactory(settings)
    assert_type(factory, SqlAlchemySessionFactory[Session])
    assert_type(factory, SqlAlchemySessionFactory)
    assert_type(factory(), Session)
    assert_type(factory.begin(), AbstractContextManager[Session])
    assert_type(factory.reader, SessionFactory[Session])
    with factory() as session:
        assert_type(session, Session)
    with factory.begin() as session:
        assert_type(session, Session)
    with factory.reader.begin() as session:
        assert_type(session, Session)
    interface: SessionFactory = factory
    interface()


def own_session_class(settings: DatabaseSettings) -> None:
    """The factory is generic in its session class."""
    factory = SqlAlchemySessionFactory(settings, session_class=MySession)
    assert_type(factory, SqlAlchemySessionFactory[MySession])
    assert_type(factory(), MySession)
    assert_type(factory.reader, SessionFactory[MySession])
    assert_type(factory.session_class, type[MySession])
    with factory.begin() as session:
        assert_type(session, MySession)
    own: SessionFactory[MySession] = factory
    plain: SessionFactory = factory
    own()
    plain()


def members(settings: DatabaseSettings) -> None:
    """What the concrete class has beyond the interface."""
    factory = SqlAlchemySessionFactory(settings, name="analytics")
    assert_type(factory.settings, DatabaseSettings)
    assert_type(factory.name, str)
    assert_type(factory.engine, Engine)
    assert_type(factory.ping(), Health)
    assert_type(factory.ping(timeout=1), Health)
    assert_type(factory.status(), PoolStatus)
    assert_type(factory.close(), tuple[Holder, ...])
    assert_type(factory.close(timeout=0.5), tuple[Holder, ...])
    with SqlAlchemySessionFactory(settings, session_class=MySession) as entered:
        assert_type(entered, SqlAlchemySessionFactory[MySession])


def code_after_a_block_is_reachable(factory: SqlAlchemySessionFactory) -> int:
    """Neither block swallows an error, so that a function may end inside one."""
    with factory, factory.begin():
        return 1


def refused(settings: DatabaseSettings, factory: SqlAlchemySessionFactory) -> None:
    """What the concrete class does not take."""
    SqlAlchemySessionFactory()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    SqlAlchemySessionFactory("sqlite://")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    SqlAlchemySessionFactory(settings, "name")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    SqlAlchemySessionFactory(settings, pool_size=5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    SqlAlchemySessionFactory(settings, session_class=AsyncSession)  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]
    SqlAlchemySessionFactory(settings, session_class=Session())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    factory.ping(2.0)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    factory.close(2.0)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    factory.engine = factory.engine  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    factory(expire_on_commit=True)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    own: SessionFactory[MySession] = factory  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    own()
