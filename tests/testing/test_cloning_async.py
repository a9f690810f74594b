"""``AsyncCloningSessionFactory`` where it is about event loops, tasks and their cancellation.

What both halves have in common is in ``tests/contract/test_cloning.py``.
"""

from __future__ import annotations

import asyncio
import gc
import threading
from typing import TYPE_CHECKING, Any, Never, cast

import pytest
from sqlalchemy import func, select

from sessionfactory.errors import ClosedError
from sessionfactory.testing import AsyncCloningSessionFactory, AsyncInMemorySessionFactory
from tests.support.isolated import Base, Player, one_team

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from sqlalchemy.ext.asyncio import AsyncEngine

    from sessionfactory import AsyncSessionFactory
    from sessionfactory.testing import PostgresServer


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Path]:
    """Where the clones are put: a directory that is empty again after the test."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    yield tmp_path
    assert list(tmp_path.rglob("*")) == []


async def add_player(sessions: AsyncSessionFactory) -> int:
    """Add one player, commit, and count the players."""
    async with sessions.begin() as session:
        session.add(Player())
    async with sessions() as session:
        return await session.scalar(select(func.count()).select_from(Player)) or 0


async def create_all(engine: AsyncEngine) -> None:
    """Prepare a template."""
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)


@pytest.mark.parametrize("driver", ["sqlite", "psycopg", "asyncpg"])
def test_one_factory_for_tests_with_a_loop_each(
    driver: str, postgres_server: PostgresServer
) -> None:
    """It belongs to no event loop: pytest's tests have a new one each, and it is made once."""
    url = "sqlite://" if driver == "sqlite" else postgres_server.url_for(driver)
    cloning = AsyncCloningSessionFactory(url, create_all, seed=one_team)

    async def test() -> None:
        async with cloning.clone() as sessions:
            assert await add_player(sessions) == 2

    for _ in range(4):
        asyncio.run(test())
    asyncio.run(cloning.aclose())


@pytest.mark.asyncio
async def test_preparation_that_does_nothing() -> None:
    """A template may be empty: the tests make their tables themselves."""

    async def nothing(engine: AsyncEngine) -> None: ...

    async with AsyncCloningSessionFactory("sqlite://", nothing) as cloning:
        for _ in range(2):
            async with cloning.clone() as sessions:
                await create_all(sessions.engine)
                assert await add_player(sessions) == 1


@pytest.mark.asyncio
async def test_preparation_that_fails() -> None:
    """A template that could not be prepared is dropped, and the next test prepares another one."""
    failures = [ZeroDivisionError()]

    async def prepare(engine: AsyncEngine) -> None:
        while failures:
            raise failures.pop()
        await create_all(engine)

    async with AsyncCloningSessionFactory("sqlite://", prepare) as cloning:
        with pytest.raises(ZeroDivisionError):
            await cloning.clone().__aenter__()
        async with cloning.clone() as sessions:
            assert await add_player(sessions) == 1


@pytest.mark.asyncio
async def test_tasks() -> None:
    """Many tasks may ask for clones at the same time, from the first one on."""

    async def use() -> int:
        async with cloning.clone() as sessions:
            return await add_player(sessions)

    async with AsyncCloningSessionFactory("sqlite://", Base.metadata, seed=one_team) as cloning:
        assert set(await asyncio.gather(*(use() for _ in range(20)))) == {2}


@pytest.mark.asyncio
async def test_cancelled_while_waiting() -> None:
    """A task that is cancelled while its clone is made leaves the clone to the next one."""
    go_on = threading.Event()
    async with AsyncCloningSessionFactory("sqlite://", Base.metadata, ahead=0) as cloning:
        async with cloning.clone() as sessions:
            first = sessions.name
        cloning._cloner._thread.submit(go_on.wait)
        waiting = asyncio.create_task(cloning._take())
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        given_back = list(cloning._cloner._pending)
        go_on.set()
        async with cloning.clone() as sessions:
            assert sessions is given_back[0].result()
            assert sessions.name != first
            assert await add_player(sessions) == 1


@pytest.mark.asyncio
async def test_cancelled_while_preparing() -> None:
    """Who is cancelled amid the preparation leaves it to another one, who waits for it."""
    begun, attempts = asyncio.Event(), list[str]()

    async def prepare(engine: AsyncEngine) -> None:
        attempts.append(str(engine.url.database))
        begun.set()
        if len(attempts) == 1:
            await asyncio.Event().wait()
        await create_all(engine)

    async def use() -> int:
        async with cloning.clone() as sessions:
            return await add_player(sessions)

    async with AsyncCloningSessionFactory("sqlite://", prepare) as cloning:
        first = asyncio.create_task(use())
        await begun.wait()
        second = asyncio.create_task(use())
        await asyncio.sleep(0)
        first.cancel()
        assert await second == 1
        with pytest.raises(asyncio.CancelledError):
            await first
    assert len(set(attempts)) == 2


@pytest.mark.asyncio
async def test_cancelled_while_closing() -> None:
    """Who is cancelled amid the end has everything dropped all the same: see ``home``."""
    go_on = threading.Event()
    cloning = AsyncCloningSessionFactory("sqlite://", Base.metadata)
    async with cloning.clone() as sessions:
        assert await add_player(sessions) == 1
    cloning._cloner._thread.submit(go_on.wait)
    closing = asyncio.create_task(cloning.aclose())
    await asyncio.sleep(0)
    closing.cancel()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await closing
    cloning._cloner._thread.shutdown()


@pytest.mark.asyncio
async def test_closed_while_waiting() -> None:
    """A task that waits for a clone at the close gets an error, and no cancellation."""
    go_on = threading.Event()
    cloning = AsyncCloningSessionFactory("sqlite://", Base.metadata, ahead=0)
    async with cloning.clone():
        cloning._cloner._thread.submit(go_on.wait)
        waiting = asyncio.create_task(cloning._take())
        await asyncio.sleep(0)
        closing = asyncio.create_task(cloning.aclose())
        await asyncio.sleep(0)
        go_on.set()
        with pytest.raises(ClosedError, match="was closed before the clone was made"):
            await waiting
        await closing


def no_more(name: str) -> Never:
    """Make no clones."""
    raise AssertionError(name)


@pytest.mark.asyncio
async def test_not_closed() -> None:
    """One that is collected with databases left gives a warning."""
    cloning = AsyncCloningSessionFactory("sqlite://", Base.metadata)
    async with cloning.clone():
        pass
    cloner = cloning._cloner
    for clone in cloner._pending:
        clone.result()
    cloner._pending.clear()
    cloner._ready = no_more
    with pytest.warns(
        ResourceWarning, match="AsyncCloningSessionFactory was not closed; its datab"
    ):
        del cloning
        gc.collect()
    assert cloner.stop() is not None
    cloner.end().result()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"prepare": Base.metadata.create_all}, "prepare is a function that nobody could await"),
        ({"prepare": Base}, r"expected a MetaData, not .*: say Base\.metadata"),
        ({"seed": create_all}, "seed is a coroutine function, 'create_all': in both halves it is"),
    ],
)
def test_the_other_half_s_functions_are_refused(wrong: dict[str, Any], message: str) -> None:
    """What would never run is a mistake that is named when the factory is made."""
    parts: dict[str, Any] = {"prepare": create_all, **wrong}
    with pytest.raises(TypeError, match=message):
        AsyncCloningSessionFactory("sqlite://", **parts)


def test_coroutine_function_as_the_seed_of_a_memory() -> None:
    """The in-memory factory refuses such a seed as well."""
    seed = cast("Any", create_all)
    with pytest.raises(TypeError, match="seed is a coroutine function, 'create_all'"):
        AsyncInMemorySessionFactory(Base.metadata, seed=seed)
