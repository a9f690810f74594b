"""The places where a session factory keeps its promises: halves, databases, drivers, fakes."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any, Final

import pytest
from attrs import frozen
from sqlalchemy import make_url, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from sessionfactory import (
    AsyncSqlAlchemySessionFactory,
    DatabaseSettings,
)
from sessionfactory.testing import (
    AsyncCloningSessionFactory,
    AsyncInMemorySessionFactory,
    AsyncRecordingSessionFactory,
    AsyncRollbackSessionFactory,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine

    from sqlalchemy import URL

    from sessionfactory import AsyncSessionFactory
    from tests.support.halves import Half

    Test = Callable[..., Coroutine[Any, Any, None]]


class Base(DeclarativeBase):
    pass


class Row(Base):
    __tablename__ = "contract_row"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)


SERVERS: Final = (
    *("sync psycopg", "sync psycopg2", "sync pymysql"),
    *("async psycopg", "async asyncpg", "async aiomysql"),
)
ROOMY: Final = (*SERVERS, "sync file", "async file")  # there can be several connections
REAL: Final = (*ROOMY, "sync memory", "async memory")
FAKES: Final = (
    *("sync in-memory", "sync recording", "sync rollback", "sync cloning", "sync plain"),
    *("async in-memory", "async recording", "async rollback", "async cloning", "async plain"),
)
FILES: Final = ("sync file", "async file")  # for what is the same on every database


@frozen
class Place:
    """A half, a database, and what kind of factory is made there."""

    half: Half
    url: str | URL
    kind: str = "real"

    @property
    def backend(self) -> str:
        """The database, as SQLAlchemy calls it."""
        return make_url(self.url).get_backend_name()

    def make(
        self,
        *,
        name: str = "default",
        session_class: type[AsyncSession] = AsyncSession,
        **settings: Any,
    ) -> AsyncSqlAlchemySessionFactory:
        """Make a factory, which the test closes."""
        return self.half.make(
            AsyncSqlAlchemySessionFactory,
            DatabaseSettings(self.url, **settings),
            name=name,
            session_class=session_class,
        )

    @asynccontextmanager
    async def factory(self, **settings: Any) -> AsyncGenerator[AsyncSqlAlchemySessionFactory]:
        """Open a factory of ours, on a database with an empty table."""
        async with self.make(**settings) as made:
            async with made.engine.begin() as connection:
                await connection.run_sync(Base.metadata.create_all)
            yield made

    @asynccontextmanager
    async def sessions(self) -> AsyncGenerator[AsyncSessionFactory]:
        """Open whatever kind of factory this place has."""
        make = self.half.make
        if self.kind == "in-memory":
            async with make(
                AsyncInMemorySessionFactory, Base.metadata, session_class=AsyncSession
            ) as memory:
                yield memory
            return
        if self.kind == "cloning":
            async with (
                make(
                    AsyncCloningSessionFactory, self.url, Base.metadata, session_class=AsyncSession
                ) as cloning,
                cloning.clone() as clone,
            ):
                yield clone
            return
        async with self.factory() as real:
            if self.kind == "rollback":
                async with make(AsyncRollbackSessionFactory, real) as undone:
                    yield undone
            elif self.kind == "recording":
                yield make(AsyncRecordingSessionFactory, real)
            elif self.kind == "plain":
                yield make(async_sessionmaker, real.engine, expire_on_commit=False)
            else:
                yield real


def on(*places: str) -> Callable[[Test], Callable[..., None]]:
    """Have a test that is written for the async half run at each of these places."""

    def decorate(test: Test) -> Callable[..., None]:
        @wraps(test)
        def run(place: Place, **fixtures: Any) -> None:
            place.half.run(test(place=place, **fixtures))

        marked: Callable[..., None] = pytest.mark.parametrize("place", places, indirect=True)(run)
        return marked

    return decorate


async def ids(sessions: AsyncSessionFactory) -> list[int]:
    """Return the rows that a new session finds."""
    async with sessions() as session:
        return list(await session.scalars(select(Row.id).order_by(Row.id)))
