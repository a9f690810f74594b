# pyright: reportUnnecessaryTypeIgnoreComment=true
"""Functions over sessions and factories as a type checker sees them; checked, never run."""

from __future__ import annotations

from collections.abc import Callable
from typing import assert_type

from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session, sessionmaker

from sessionfactory import (
    AfterCommitError,
    AsyncSessionFactory,
    AsyncSqlAlchemySessionFactory,
    SessionFactory,
    SqlAlchemySessionFactory,
    on_commit,
    with_options,
)
from sessionfactory.testing import capturing_callbacks


class MySession(Session):
    """A session class of a user's own."""


class MyAsyncSession(AsyncSession):
    """Its twin."""


async def work() -> int:
    """Run after a commit."""
    return 1


def after_commits(session: MySession, async_session: MyAsyncSession) -> None:
    """Any session, and whatever the callback returns."""
    on_commit(session, print)
    on_commit(async_session, work)
    on_commit(session, lambda: session.close())  # noqa: PLW0108 - as people write it
    on_commit(async_session, async_session.close)
    on_commit(session)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    on_commit(print, session)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    on_commit(session, work())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def captured(
    sessions: SessionFactory[MySession], async_sessions: AsyncSessionFactory[MyAsyncSession]
) -> None:
    """What a test gets, of either half."""
    with capturing_callbacks(sessions) as callbacks:
        assert_type(callbacks, list[Callable[[], object]])
    with capturing_callbacks(async_sessions) as callbacks:
        assert_type(callbacks, list[Callable[[], object]])


def failures(error: AfterCommitError) -> None:
    """The error is a group."""
    assert_type(error.exceptions, tuple[Exception | ExceptionGroup[Exception], ...])


def views(
    plain: SessionFactory,
    own: SessionFactory[MySession],
    concrete: SqlAlchemySessionFactory[MySession],
    maker: sessionmaker[MySession],
) -> None:
    """A view is a factory of the same sessions."""
    assert_type(with_options(plain), SessionFactory[Session])
    assert_type(with_options(own, read_only=True), SessionFactory[MySession])
    assert_type(with_options(concrete, isolation_level="SERIALIZABLE"), SessionFactory[MySession])
    assert_type(with_options(maker, local={"app.tenant": "7"}), SessionFactory[MySession])
    assert_type(with_options(concrete.reader, lock_timeout=1), SessionFactory[MySession])
    nested = with_options(with_options(own, read_only=True), deferrable=True)
    assert_type(nested(), MySession)
    with nested.begin() as session:
        assert_type(session, MySession)


async def async_views(
    plain: AsyncSessionFactory,
    own: AsyncSessionFactory[MyAsyncSession],
    concrete: AsyncSqlAlchemySessionFactory[MyAsyncSession],
    maker: async_sessionmaker[MyAsyncSession],
) -> None:
    """A view of the async half stays there."""
    assert_type(with_options(plain), AsyncSessionFactory[AsyncSession])
    assert_type(with_options(own, read_only=True), AsyncSessionFactory[MyAsyncSession])
    assert_type(with_options(concrete, statement_timeout=5), AsyncSessionFactory[MyAsyncSession])
    schemas = with_options(maker, schema_translate_map={None: "other"})
    assert_type(schemas, AsyncSessionFactory[MyAsyncSession])
    async with with_options(own, isolation_level="AUTOCOMMIT").begin() as session:
        assert_type(session, MyAsyncSession)


def refused(own: SessionFactory[MySession], session: MySession) -> None:
    """What a view does not take."""
    with_options()  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    with_options(session)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    with_options(own, True)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    with_options(own, readonly=True)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    with_options(own, isolation_level="SNAPSHOT")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    with_options(own, local={"app.tenant": 7})  # type: ignore[dict-item]  # pyright: ignore[reportArgumentType, reportCallIssue]
    other: SessionFactory[Session] = with_options(own)
    other()
