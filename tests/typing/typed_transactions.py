# pyright: reportUnnecessaryTypeIgnoreComment=true
"""Functions over sessions and factories as a type checker sees them; checked, never run."""

from __future__ import annotations

from collections.abc import Callable
from typing import assert_type

from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from sessionfactory import AfterCommitError, AsyncSessionFactory, SessionFactory, on_commit
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
