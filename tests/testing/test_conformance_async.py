"""The async conformance check; what it shares with its twin is tested there."""

from __future__ import annotations

from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, Any, cast

import pytest
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import sessionmaker

from sessionfactory.testing.conformance._requirements import CONFORMANCE_TABLE, ConformanceError
from sessionfactory.testing.conformance.conformance_async import check_async_session_factory
from sessionfactory.testing.recording.recording_async import AsyncRecordingSessionFactory

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator
    from pathlib import Path

    from sessionfactory import AsyncSessionFactory
    from sessionfactory.testing import MariaDBServer, PostgresServer

pytestmark = pytest.mark.asyncio


@asynccontextmanager
async def engine_on(url: str) -> AsyncGenerator[AsyncEngine]:
    """An async engine for the length of a block."""
    engine = create_async_engine(url)
    try:
        yield engine
    finally:
        await engine.dispose()


class Fake:
    """A small correct factory, for the broken ones to differ from."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine

    def __call__(self) -> AsyncSession:
        return AsyncSession(self.engine)

    @asynccontextmanager
    async def begin(self) -> AsyncGenerator[AsyncSession]:
        async with self() as session, session.begin():
            yield session


class NeverCommits(Fake):
    @asynccontextmanager
    async def begin(self) -> AsyncGenerator[AsyncSession]:
        async with self() as session:
            yield session


class Swallows(Fake):
    @asynccontextmanager
    async def begin(self) -> AsyncGenerator[AsyncSession]:
        with suppress(Exception):
            async with super().begin() as session:
                yield session


class ForgetsCancellation(Fake):
    @asynccontextmanager
    async def begin(self) -> AsyncGenerator[AsyncSession]:
        async with self() as session:
            try:
                yield session
            except Exception:
                await session.rollback()
                raise
            finally:
                await session.commit()


class RefusesNesting(Fake):
    busy = False

    @asynccontextmanager
    async def begin(self) -> AsyncGenerator[AsyncSession]:
        if self.busy:
            raise RuntimeError("one at a time")
        self.busy = True
        try:
            async with super().begin() as session:
                yield session
        finally:
            self.busy = False


class BeginsLikeASyncOne(Fake):
    @contextmanager
    def begin(self) -> Generator[Any]:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        yield None


async def broken_promises(make: Callable[[], object]) -> list[str]:
    """Return what the check says about a factory."""
    with pytest.raises(ConformanceError, match="of AsyncSessionFactory") as caught:
        await check_async_session_factory(cast("Callable[[], AsyncSessionFactory]", make))
    return list(caught.value.broken)


async def test_factories_on_sqlite_conform(tmp_path: Path) -> None:
    """SQLAlchemy's, plain fakes, and a recording one on a table that was there."""
    async with engine_on(f"sqlite+aiosqlite:///{tmp_path / 'app.db'}") as engine:
        await check_async_session_factory(lambda: async_sessionmaker(engine))
        await check_async_session_factory(lambda: Fake(engine))
        await check_async_session_factory(lambda: RefusesNesting(engine))
        async with engine.begin() as connection:
            await connection.run_sync(CONFORMANCE_TABLE.create)
        recorder = AsyncRecordingSessionFactory(async_sessionmaker(engine))
        await check_async_session_factory(lambda: recorder)

    recording = recorder.recording
    assert recording.sessions == recording.closed > 20


async def test_factories_on_servers_conform(
    postgres_server: PostgresServer, mariadb_server: MariaDBServer
) -> None:
    """On real servers, too."""
    for url in (postgres_server.async_url, mariadb_server.async_url):
        async with engine_on(url) as engine:
            await check_async_session_factory(lambda: async_sessionmaker(engine))


async def test_broken_fakes_are_caught(tmp_path: Path) -> None:
    """Each kind of breach has its own sentence."""
    async with engine_on(f"sqlite+aiosqlite:///{tmp_path / 'app.db'}") as engine:
        assert (
            "begin() commits when its block ends: the next session did not find what it wrote"
            in await broken_promises(lambda: NeverCommits(engine))
        )
        assert await broken_promises(lambda: Swallows(engine)) == [
            "begin() passes on what its block raises: the error was swallowed",
            "begin() passes on what its commit raises, and closes: the error was swallowed",
        ]
        assert await broken_promises(lambda: ForgetsCancellation(engine)) == [
            "begin() does all three for CancelledError, too: the next session found what it wrote"
        ]


async def test_sync_factories_are_told_where_to_go() -> None:
    """The two halves are not mistaken for one another."""
    engine = create_engine("sqlite://")
    told = await broken_promises(lambda: sessionmaker(engine))
    engine.dispose()

    assert told[0] == (
        "a call gives an AsyncSession: it gave Session; check_session_factory is for sync factories"
    )
    assert len(told) == 2
    other = await broken_promises(
        lambda: BeginsLikeASyncOne(create_async_engine("sqlite+aiosqlite://"))
    )
    sentence = "begin() gives a context manager whose value is an AsyncSession: it gave "
    assert other == [sentence + "_GeneratorContextManager"]


async def test_a_factory_in_the_place_of_what_makes_it() -> None:
    """Who gives the factory itself, which makes sessions, is told what to give instead."""
    engine = create_async_engine("sqlite+aiosqlite://")
    with pytest.raises(ConformanceError, match="give its class, or lambda: sessions"):
        await check_async_session_factory(cast("Any", async_sessionmaker(engine)))
    await engine.dispose()
