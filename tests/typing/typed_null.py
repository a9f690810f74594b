# pyright: reportUnnecessaryTypeIgnoreComment=true
"""The null factory as a type checker sees it; checked by mypy and pyright, never run."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Never, assert_type

from sqlalchemy.orm import Session

from sessionfactory import NullSessionFactory

if TYPE_CHECKING:
    from sessionfactory import SessionFactory


class MySession(Session):
    """A session class of a user's own."""


def wants_session(sessions: SessionFactory) -> None:
    """Stand for a service."""
    sessions()


def wants_my_session(sessions: SessionFactory[MySession]) -> None:
    """Stand for a service with a session class of its own."""
    sessions()


def of_sessions(null: NullSessionFactory) -> SessionFactory:
    """The null factory is a ``SessionFactory`` of plain sessions."""
    return null


def of_my_sessions(null: NullSessionFactory) -> SessionFactory[MySession]:
    """It is one of any session class, too."""
    return null


def of_anything(null: NullSessionFactory) -> SessionFactory[int]:
    """It is one of what is no session at all."""
    return null


def as_an_argument(null: NullSessionFactory) -> None:
    """A service takes it whatever sessions it wants."""
    wants_session(null)
    wants_my_session(null)
    wants_session(NullSessionFactory("no database in this test"))


def members(null: NullSessionFactory) -> str:
    """What it has beside the interface is its reason."""
    assert_type(null.begin(), AbstractContextManager[Any])
    assert_type(null.reason, str)
    return NullSessionFactory(reason="no database").reason


def code_after_begin_is_reachable(null: NullSessionFactory) -> int:
    """With ``Never`` in ``begin`` the error in the last line would go unseen."""
    with null.begin():
        pass
    return "text"  # type: ignore[return-value]  # pyright: ignore[reportReturnType]


def call_never_returns(null: NullSessionFactory) -> Never:
    """A function that opens a session may promise never to return."""
    null()


def refused(null: NullSessionFactory) -> None:
    """What the null factory does not do."""
    NullSessionFactory()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    NullSessionFactory(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    NullSessionFactory("reason", "more")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    null.begin(1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    null.engine  # type: ignore[attr-defined]  # noqa: B018  # pyright: ignore[reportAttributeAccessIssue]
    null.ping()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
