"""A database of its own for every test, in both halves: PostgreSQL by templates, SQLite by images.

Circular foreign keys are in the tables of all of them.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
from sqlalchemy import func, make_url, select, text

from sessionfactory import ClosedError, SettingsError
from sessionfactory.testing import AsyncCloningSessionFactory, IsolationError
from tests.support.awaited import Awaited, OwnAsyncSession, OwnSession
from tests.support.halves import AsyncHalf
from tests.support.isolated import Base, Player, one_team
from tests.support.places import Place, on

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

    from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
    from sqlalchemy.orm import Session

    from sessionfactory import AsyncSessionFactory
    from sessionfactory.testing import PostgresServer
    from tests.support.halves import Half

SERVERS: Final = ("sync psycopg", "async psycopg", "async asyncpg")
PLACES: Final = (*SERVERS, "sync memory", "async memory")
SQLITE: Final = ("sync memory", "async memory")

DATABASES: Final = "SELECT datname FROM pg_database WHERE datname LIKE 'sessionfactory%'"


@pytest.fixture(autouse=True)
def home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: Place, request: pytest.FixtureRequest
) -> Generator[None]:
    """Whatever a test does, no file and no database is left."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(home))
    yield
    assert list(home.rglob("*")) == []
    if place.backend == "postgresql":
        server: PostgresServer = request.getfixturevalue("postgres_server")
        assert server.execute(DATABASES) == ""


def cloning_on(place: Place, prepare: Any = None, **options: Any) -> AsyncCloningSessionFactory:
    """Make the factory of this place, by default with the two tables of a team."""
    url = make_url(place.url)
    make: Callable[..., AsyncCloningSessionFactory] = AsyncCloningSessionFactory
    return place.half.make(make, url, prepare or Base.metadata, **options)


def preparation(
    half: Half, prepare: Callable[[AsyncEngine], Awaitable[None]]
) -> Callable[[Any], Any]:
    """Return a function that prepares a template, as this half wants it."""
    if isinstance(half, AsyncHalf):
        return prepare

    async def awaited(engine: Any) -> None:
        await prepare(Awaited(engine))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

    return lambda engine: half.run(awaited(engine))


async def add_player(sessions: AsyncSessionFactory) -> None:
    """Add one player, and commit."""
    async with sessions.begin() as session:
        session.add(Player())


async def players(sessions: AsyncSessionFactory) -> int:
    """Count the players."""
    async with sessions() as session:
        return await session.scalar(select(func.count()).select_from(Player)) or 0


@on(*PLACES)
async def test_clones_are_apart(place: Place) -> None:
    """Commits and new tables of one test are not seen by the next, nor by one at the same time."""
    async with cloning_on(place, seed=one_team) as cloning:
        for _ in range(5):
            async with cloning.clone() as sessions, cloning.clone() as others:
                await add_player(sessions)
                async with sessions.begin() as session:
                    await session.execute(text("CREATE TABLE extra (a INTEGER)"))
                assert (await players(sessions), await players(others)) == (2, 1)


@on(*PLACES)
async def test_clone_is_a_real_factory(place: Place) -> None:
    """A clone is a factory with several connections, which see only what others committed."""
    async with cloning_on(place) as cloning, cloning.clone() as sessions:
        async with sessions.begin() as session:
            session.add(Player())
            await session.flush()
            assert sessions.status().in_use == 1
            assert await players(sessions) == 0
        assert await players(sessions) == 1


@on(*PLACES)
async def test_prepared_once(place: Place) -> None:
    """The template is prepared when the first clone is asked for, and where it is asked for."""
    calls: list[str] = []

    async def prepare(engine: AsyncEngine) -> None:
        calls.append(place.half.me())
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)

    function = preparation(place.half, prepare)
    async with cloning_on(place, function, session_class=OwnAsyncSession, ahead=0) as cloning:
        assert calls == []
        for _ in range(3):
            async with cloning.clone() as sessions, sessions() as session:
                assert isinstance(session.sync_session, OwnSession)
    assert calls == [place.half.me()]


@on(*PLACES)
async def test_session_left_open(place: Place) -> None:
    """A test that leaves a session open is told where, and its clone is dropped all the same."""
    left: list[AsyncSession] = []
    async with cloning_on(place) as cloning:
        with pytest.raises(IsolationError) as caught:
            async with cloning.clone() as sessions:
                left.append(sessions())
                await left[0].execute(text("SELECT 1"))
        message = str(caught.value)
        start = "This test left sessions open, which were cut off; opened at:\n  - "
        assert message.startswith(start)
        assert f"in test_session_left_open, {place.half.me()}, for 0." in message
        await left[0].close()
        async with cloning.clone() as sessions:
            assert await players(sessions) == 0


@on(*PLACES)
async def test_failed_test(place: Place) -> None:
    """The error of a test that fails is not hidden by what it left open."""
    left: list[AsyncSession] = []
    async with cloning_on(place) as cloning:
        with pytest.raises(ZeroDivisionError):
            async with cloning.clone() as sessions:
                left.append(sessions())
                await left[0].execute(text("SELECT 1"))
                raise ZeroDivisionError
    await left[0].close()


@on(*PLACES)
async def test_failed_preparation(place: Place) -> None:
    """What the preparation raises is passed on, each time, and nothing is left."""

    def fail(_: Session) -> None:
        raise ZeroDivisionError

    async with cloning_on(place, seed=fail) as cloning:
        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                async with cloning.clone():
                    pytest.fail("there is no clone")


@on(*PLACES)
async def test_who_waits_prepares_if_the_first_fails(place: Place) -> None:
    """A second test that waits for the template makes it itself if the first one could not."""
    begun, go_on = place.half.signal(), place.half.signal()
    attempts: list[str] = []

    async def prepare(engine: AsyncEngine) -> None:
        attempts.append(place.half.me())
        if len(attempts) == 1:
            begun.set()
            await go_on.wait()
            raise ZeroDivisionError
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)

    async def first() -> None:
        with pytest.raises(ZeroDivisionError):
            async with cloning.clone():
                pytest.fail("there is no clone")

    async with (
        cloning_on(place, preparation(place.half, prepare)) as cloning,
        place.half.elsewhere(first) as other,
    ):
        await begun.wait()
        go_on.set()
        async with cloning.clone() as sessions:
            assert await players(sessions) == 0
    assert attempts == [other, place.half.me()]


@on(*PLACES)
async def test_closed(place: Place) -> None:
    """After the end there are no clones; ending twice is the same as once."""
    async with cloning_on(place) as cloning:
        async with cloning.clone() as sessions:
            await cloning.aclose()
            with pytest.raises(ClosedError, match="This cloning session factory is closed; it mak"):
                async with cloning.clone():
                    pytest.fail("there is no clone")
        await cloning.aclose()
        with pytest.raises(ClosedError, match="The session factory 'sessionfactory_"):
            sessions()


def occupy(file: Path) -> None:
    """Put something in the place of a database that cannot be dropped like one."""
    file.mkdir()


@pytest.mark.parametrize("failed", [False, True])
@on(*SQLITE)
async def test_not_dropped(place: Place, *, failed: bool) -> None:
    """A database that cannot be dropped is named, with the reason, and the others go.

    An error of the block is not hidden by that.
    """
    cloning = cloning_on(place, ahead=0)
    async with cloning.clone() as sessions:
        file = Path(sessions.settings.url.database or "")
    async with cloning.clone():  # by now, the first one is dropped
        occupy(file)
        cloning._cloner._databases[file.name] = None
    with pytest.raises(ZeroDivisionError if failed else IsolationError) as caught:
        async with cloning:
            _ = 1 / (not failed)
    assert (caught.value.__notes__[0] if failed else str(caught.value)) == (
        "These databases could not be dropped:"
        f"\n  - {file.name}: [Errno 21] Is a directory: '{file}'"
    )


@on(*SERVERS)
async def test_no_right_to_create(place: Place, postgres_server: PostgresServer) -> None:
    """A user who may not create databases is told so in the server's words."""
    postgres_server.execute("CREATE ROLE humble LOGIN PASSWORD 'x'")
    humble = Place(place.half, make_url(place.url).set(username="humble", password="x"))
    try:
        async with cloning_on(humble) as cloning:
            with pytest.raises(IsolationError) as caught:
                async with cloning.clone():
                    pytest.fail("there is no clone")
    finally:
        postgres_server.execute("DROP ROLE humble")
    message = str(caught.value)
    assert message.startswith("No template could be made to clone databases from: ")
    assert message.endswith("permission denied to create database")


@on(*SERVERS)
async def test_connections_of_others(place: Place) -> None:
    """A clone is dropped while another client is still connected to it."""
    async with cloning_on(place) as cloning, cloning.clone() as sessions:
        url = make_url(place.url).set(database=sessions.name)
        other = Place(place.half, url).make()
        connection = await other.engine.connect()
    await connection.invalidate()
    await connection.close()
    await other.aclose()


@on(*SQLITE)
async def test_other_databases(place: Place) -> None:
    """What cannot be cloned is refused when the factory is made, with or without its driver."""
    problem = "url: expected postgresql or sqlite: oracle does not copy databases"
    with pytest.raises(SettingsError, match=problem):
        cloning_on(Place(place.half, "oracle+nodriver://h/d"))


@on(*SQLITE)
async def test_no_metadata(place: Place) -> None:
    """A declarative base in place of its metadata is a mistake that is named."""
    with pytest.raises(TypeError, match=r"expected a MetaData, not .*: say Base\.metadata$"):
        cloning_on(place, Base)
