# pyright: reportUnnecessaryTypeIgnoreComment=true
"""The async interface as a type checker sees it; checked by mypy and pyright, never run."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, NewType, Protocol, assert_type

from attrs import define
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session, async_sessionmaker

from sessionfactory import AsyncSessionFactory

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from sqlalchemy.orm import Session, sessionmaker


class MySession(AsyncSession):
    """A session class of a user's own."""

    tenant: str = ""


class Analytics(AsyncSessionFactory, Protocol):
    """A second database, for a container that resolves by type."""


class TenantAnalytics(AsyncSessionFactory[MySession], Protocol):
    """A second database with a session class of its own."""


@define
class Signup:
    """A service: it knows the interface only."""

    sessions: AsyncSessionFactory

    async def register(self) -> int:
        """Use both methods."""
        async with self.sessions() as session:
            assert_type(session, AsyncSession)
        async with self.sessions.begin() as session:
            assert_type(session, AsyncSession)
            return 1


@define
class TenantSignup:
    """A service that wants more than a plain session."""

    sessions: AsyncSessionFactory[MySession]


class Handmade:
    """A user's own factory, which does not import this package."""

    def __call__(self) -> AsyncSession:
        """Open a session."""
        return AsyncSession()

    @asynccontextmanager
    async def begin(self) -> AsyncGenerator[AsyncSession]:
        """Run a transaction."""
        async with AsyncSession() as session, session.begin():
            yield session


class WithoutBegin:
    """Only half of the interface."""

    def __call__(self) -> AsyncSession:
        """Open a session."""
        return AsyncSession()


class WrongBegin:
    """Opens sessions of another kind in ``begin``."""

    def __call__(self) -> AsyncSession:
        """Open a session."""
        return AsyncSession()

    def begin(self) -> AbstractAsyncContextManager[str]:
        """Run something else."""
        raise NotImplementedError


async def bare_means_session(sessions: AsyncSessionFactory) -> None:
    """The interface alone is the interface of ``AsyncSession``."""
    assert_type(sessions, AsyncSessionFactory[AsyncSession])
    assert_type(sessions(), AsyncSession)
    assert_type(sessions.begin(), AbstractAsyncContextManager[AsyncSession])
    async with sessions.begin() as session:
        assert_type(session, AsyncSession)


async def own_session_class(sessions: AsyncSessionFactory[MySession]) -> AsyncSessionFactory:
    """A factory of a subclass is a factory of ``AsyncSession``, because it only gives sessions."""
    assert_type(sessions(), MySession)
    async with sessions.begin() as session:
        assert_type(session, MySession)
        assert_type(session.tenant, str)
    Signup(sessions)
    TenantSignup(sessions)
    return sessions


def sessionmakers(
    plain: async_sessionmaker[AsyncSession],
    own: async_sessionmaker[MySession],
) -> None:
    """SQLAlchemy's own factory satisfies the interface."""
    Signup(plain)
    Signup(own)
    TenantSignup(own)
    Signup(async_sessionmaker())
    TenantSignup(async_sessionmaker(class_=MySession))
    first: AsyncSessionFactory = async_sessionmaker()
    second: AsyncSessionFactory[MySession] = async_sessionmaker(class_=MySession)
    third: AsyncSessionFactory = async_sessionmaker(class_=MySession)
    assert_type(first(), AsyncSession)
    assert_type(second(), MySession)
    third()


def others() -> None:
    """So does whatever has the two methods."""
    Signup(Handmade())
    Signup(sessions=Handmade())


async def sub_protocols(analytics: Analytics, tenants: TenantAnalytics) -> None:
    """A sub-protocol is the interface under a name of its own."""
    assert_type(analytics(), AsyncSession)
    assert_type(tenants(), MySession)
    async with tenants.begin() as session:
        assert_type(session, MySession)
    Signup(analytics)
    TenantSignup(tenants)
    named: Analytics = async_sessionmaker()
    named()


def refused(
    scoped: async_scoped_session[AsyncSession],
    synchronous: sessionmaker[Session],
    plain: async_sessionmaker[AsyncSession],
    sessions: AsyncSessionFactory,
) -> None:
    """What must not pass for a session factory."""
    Signup(scoped)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Signup(synchronous)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Signup(WithoutBegin())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Signup(WrongBegin())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Signup(AsyncSession)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Signup(AsyncSession())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Signup(None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Signup()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    TenantSignup(plain)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    TenantSignup(sessions)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    sessions(autoflush=False)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    sessions.close()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    sessions.engine  # type: ignore[attr-defined]  # noqa: B018  # pyright: ignore[reportAttributeAccessIssue]
    AsyncSessionFactory()  # type: ignore[misc]  # pyright: ignore[reportAbstractUsage]


Marked = NewType("Marked", AsyncSessionFactory)  # type: ignore[misc]  # pyright: ignore[reportGeneralTypeIssues]
