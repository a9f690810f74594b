# pyright: reportUnnecessaryTypeIgnoreComment=true
"""The async null factory as a type checker sees it; checked by mypy and pyright, never run."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, Never, assert_type

from sqlalchemy.ext.asyncio import AsyncSession

from sessionfactory import AsyncNullSessionFactory

if TYPE_CHECKING:
    from sessionfactory import AsyncSessionFactory


class MySession(AsyncSession):
    """A session class of a user's own."""


def wants_session(sessions: AsyncSessionFactory) -> None:
    """Stand for a service."""
    sessions()


def wants_my_session(sessions: AsyncSessionFactory[MySession]) -> None:
    """Stand for a service with a session class of its own."""
    sessions()


def of_sessions(null: AsyncNullSessionFactory) -> AsyncSessionFactory:
    """The null factory is an ``AsyncSessionFactory`` of plain sessions."""
    return null


def of_my_sessions(null: AsyncNullSessionFactory) -> AsyncSessionFactory[MySession]:
    """It is one of any session class, too."""
    return null


def of_anything(null: AsyncNullSessionFactory) -> AsyncSessionFactory[int]:
    """It is one of what is no session at all."""
    return null


def as_an_argument(null: AsyncNullSessionFactory) -> None:
    """A service takes it whatever sessions it wants."""
    wants_session(null)
    wants_my_session(null)
    wants_session(AsyncNullSessionFactory("no database in this test"))


def members(null: AsyncNullSessionFactory) -> str:
    """What it has beside the interface is its reason."""
    assert_type(null.begin(), AbstractAsyncContextManager[Any])
    assert_type(null.reason, str)
    return AsyncNullSessionFactory(reason="no database").reason


async def code_after_begin_is_reachable(null: AsyncNullSessionFactory) -> int:
    """With ``Never`` in ``begin`` the error in the last line would go unseen."""
    async with null.begin():
        pass
    return "text"  # type: ignore[return-value]  # pyright: ignore[reportReturnType]


def call_never_returns(null: AsyncNullSessionFactory) -> Never:
    """A function that opens a session may promise never to return."""
    null()


def refused(null: AsyncNullSessionFactory) -> None:
    """What the null factory does not do."""
    AsyncNullSessionFactory()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    AsyncNullSessionFactory(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    AsyncNullSessionFactory("reason", "more")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    null.begin(1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    null.engine  # type: ignore[attr-defined]  # noqa: B018  # pyright: ignore[reportAttributeAccessIssue]
    null.ping()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
