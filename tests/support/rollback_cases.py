"""The databases that the rollback fakes are tried on, and one way to write a test for both halves.

A test is written for the async half. For the sync half, its sessions are wrapped so that what they
do can be awaited.
"""

from __future__ import annotations

import time
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

import attrs
from sqlalchemy import Engine, String, create_engine, func, select, text
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, sessionmaker

from sessionfactory import DatabaseSettings, SqlAlchemySessionFactory
from sessionfactory.testing.rollback.rollback import RollbackSessionFactory
from sessionfactory.testing.rollback.rollback_async import AsyncRollbackSessionFactory

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator
    from types import TracebackType


class Base(DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "rollback_item"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(50), unique=True)


NAMES = select(Item.name).order_by(Item.name)
COUNT = select(func.count(Item.id))


class Awaited:
    """Something of the sync half, whose methods can be awaited as those of the async half."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Callable[..., Any]:
        async def call(*args: Any, **kwargs: Any) -> Any:
            return getattr(self.inner, name)(*args, **kwargs)

        return call

    def add(self, item: object) -> None:
        self.inner.add(item)

    def begin_nested(self) -> Awaited:
        return Awaited(self.inner.begin_nested())

    async def connection(self) -> Awaited:
        return Awaited(self.inner.connection())

    async def __aenter__(self) -> Any:
        return Awaited(self.inner.__enter__())

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.inner.__exit__(kind, error, traceback)


class AwaitedFactory:
    """A sync fake whose sessions can be awaited."""

    def __init__(self, inner: RollbackSessionFactory) -> None:
        self.inner = inner

    def __call__(self) -> Awaited:
        return Awaited(self.inner())

    def begin(self) -> Awaited:
        return Awaited(self.inner.begin())

    def savepoint(self) -> Awaited:
        return Awaited(self.inner.savepoint())


@attrs.define(eq=False)
class Database:
    """A database with an empty table, and what another connection sees of it."""

    engine: Engine
    backend: str
    urls: dict[str, str]

    def names(self) -> list[str]:
        """Return the names that are committed."""
        with self.engine.connect() as connection:
            return list(connection.scalars(NAMES))

    def idle_in_transaction(self) -> int:
        """Return how many connections of others are in a transaction."""
        others = {
            "postgresql": "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in tr%'",
            "mysql": "SELECT count(*) FROM information_schema.innodb_trx",
        }
        if self.backend == "sqlite":
            with self.engine.begin() as connection:
                # It would wait for, and be refused by, another transaction.
                connection.exec_driver_sql("CREATE TABLE probe (a)")
                connection.exec_driver_sql("DROP TABLE probe")
            return 0
        with self.engine.connect() as connection:
            return connection.execute(text(others[self.backend])).scalar_one()  # type: ignore[no-any-return]

    def kill(self, connection_id: int) -> None:
        """End a connection from the server's side."""
        how = {"postgresql": "SELECT pg_terminate_backend(:id, 5000)", "mysql": "KILL :id"}
        with self.engine.connect() as connection:
            connection.execute(text(how[self.backend]), {"id": connection_id})


@contextmanager
def database(backend: str, urls: dict[str, str]) -> Generator[Database]:
    """Make the table, and remove it."""
    engine = create_engine(urls["look"], isolation_level="AUTOCOMMIT", pool_size=1)
    Base.metadata.create_all(engine)
    yield Database(engine, backend, urls)
    Base.metadata.drop_all(engine)
    engine.dispose()


@attrs.define(eq=False)
class Case:
    """One way to have a rollback fake on a database."""

    database: Database
    kind: str
    engine: Engine | AsyncEngine | None = None

    @asynccontextmanager
    async def fake(self) -> AsyncGenerator[Any]:
        """Run a block of the fake; nothing of it may be left when it ends, however it does."""
        try:
            async with self.real() as real, self.fake_over(real) as fake:
                yield fake
        finally:
            self.expect_nothing_left()

    @asynccontextmanager
    async def real(self) -> AsyncGenerator[Any]:
        """Make what a fake is made over, and close it."""
        url = self.database.urls[self.kind]
        if self.kind.startswith("async"):
            engine = self.engine = create_async_engine(url)
            try:
                yield async_sessionmaker(engine)
            finally:
                await engine.dispose()
        elif self.kind == "ours":
            with SqlAlchemySessionFactory(DatabaseSettings(url)) as factory:
                self.engine = factory.engine
                yield factory
        else:
            self.engine = create_engine(url)
            try:
                yield self.engine if self.kind == "engine" else sessionmaker(self.engine)
            finally:
                self.engine.dispose()

    @asynccontextmanager
    async def fake_over(self, real: Any) -> AsyncGenerator[Any]:
        """Run a block of the fake over what ``real`` has made."""
        if self.kind.startswith("async"):
            async with AsyncRollbackSessionFactory(real) as fake:
                yield fake
        else:
            with RollbackSessionFactory(real) as sync:
                yield AwaitedFactory(sync)

    def expect_nothing_left(self) -> None:
        """Expect that the pool has its connections, and that no other is in a transaction."""
        assert self.engine is not None
        assert self.engine.pool.checkedout() == 0  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
        deadline = time.monotonic() + 5  # for the server to notice that a client is gone
        while self.database.idle_in_transaction():
            assert time.monotonic() < deadline
            time.sleep(0.11)  # InnoDB repeats its answer to whom asks again within 0.1 s
