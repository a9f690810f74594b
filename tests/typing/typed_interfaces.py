# pyright: reportUnnecessaryTypeIgnoreComment=true
"""The interface as a type checker sees it; checked by mypy and pyright, never run."""

from __future__ import annotations

from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, NewType, Protocol, assert_type

from attrs import define
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from sessionfactory import SessionFactory

if TYPE_CHECKING:
    from collections.abc import Generator

    from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker


class MySession(Session):
    """A session class of a user's own."""

    tenant: str = ""


class Analytics(SessionFactory, Protocol):
    """A second database, for a container that resolves by type."""


class TenantAnalytics(SessionFactory[MySession], Protocol):
    """A second database with a session class of its own."""


@define
class Signup:
    """A service: it knows the interface only."""

    sessions: SessionFactory

    def register(self) -> int:
        """Use both methods."""
        with self.sessions() as session:
            assert_type(session, Session)
        with self.sessions.begin() as session:
            assert_type(session, Session)
            return 1


@define
class TenantSignup:
    """A service that wants more than a plain session."""

    sessions: SessionFactory[MySession]


class Handmade:
    """A user's own factory, which does not import this package."""

    def __call__(self) -> Session:
        """Open a session."""
        return Session()

    @contextmanager
    def begin(self) -> Generator[Session]:
        """Run a transaction."""
        with Session() as session, session.begin():
            yield session


class WithoutBegin:
    """Only half of the interface."""

    def __call__(self) -> Session:
        """Open a session."""
        return Session()


class WrongBegin:
    """Opens sessions of another kind in ``begin``."""

    def __call__(self) -> Session:
        """Open a session."""
        return Session()

    def begin(self) -> AbstractContextManager[str]:
        """Run something else."""
        raise NotImplementedError


def bare_means_session(sessions: SessionFactory) -> None:
    """The interface alone is the interface of ``Session``."""
    assert_type(sessions, SessionFactory[Session])
    assert_type(sessions(), Session)
    assert_type(sessions.begin(), AbstractContextManager[Session])
    with sessions.begin() as session:
        assert_type(session, Session)


def own_session_class(sessions: SessionFactory[MySession]) -> SessionFactory:
    """A factory of a subclass is a factory of ``Session``, because it only gives sessions."""
    assert_type(sessions(), MySession)
    with sessions.begin() as session:
        assert_type(session, MySession)
        assert_type(session.tenant, str)
    Signup(sessions)
    TenantSignup(sessions)
    return sessions


def sessionmakers(
    plain: sessionmaker[Session],
    own: sessionmaker[MySession],
) -> None:
    """SQLAlchemy's own factory satisfies the interface."""
    Signup(plain)
    Signup(own)
    TenantSignup(own)
    Signup(sessionmaker())
    TenantSignup(sessionmaker(class_=MySession))
    first: SessionFactory = sessionmaker()
    second: SessionFactory[MySession] = sessionmaker(class_=MySession)
    third: SessionFactory = sessionmaker(class_=MySession)
    assert_type(first(), Session)
    assert_type(second(), MySession)
    third()


def others() -> None:
    """So does whatever has the two methods."""
    Signup(Handmade())
    Signup(sessions=Handmade())


def sub_protocols(analytics: Analytics, tenants: TenantAnalytics) -> None:
    """A sub-protocol is the interface under a name of its own."""
    assert_type(analytics(), Session)
    assert_type(tenants(), MySession)
    with tenants.begin() as session:
        assert_type(session, MySession)
    Signup(analytics)
    TenantSignup(tenants)
    named: Analytics = sessionmaker()
    named()


def refused(
    scoped: scoped_session[Session],
    asynchronous: async_sessionmaker[AsyncSession],
    plain: sessionmaker[Session],
    sessions: SessionFactory,
) -> None:
    """What must not pass for a session factory."""
    Signup(scoped)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Signup(asynchronous)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Signup(WithoutBegin())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Signup(WrongBegin())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Signup(Session)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Signup(Session())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Signup(None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Signup()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    TenantSignup(plain)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    TenantSignup(sessions)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    sessions(autoflush=False)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    sessions.close()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    sessions.engine  # type: ignore[attr-defined]  # noqa: B018  # pyright: ignore[reportAttributeAccessIssue]
    SessionFactory()  # type: ignore[misc]  # pyright: ignore[reportAbstractUsage]


Marked = NewType("Marked", SessionFactory)  # type: ignore[misc]  # pyright: ignore[reportGeneralTypeIssues]
