"""How a factory ends: it refuses, waits, cuts off, and says whom."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Final

import pytest
from sqlalchemy import make_url, text
from sqlalchemy.exc import DBAPIError

from sessionfactory import (
    ClosedError,
)
from tests.support.places import FILES, REAL, ROOMY, SERVERS, Place, Row, ids, on

if TYPE_CHECKING:
    from sessionfactory import AsyncSessionFactory, Holder

ASLEEP: Final = {"postgresql": "SELECT pg_sleep(600)", "mysql": "SELECT sleep(600)"}


@on(*REAL)
async def test_a_closed_factory_refuses(place: Place) -> None:
    """After close every way to a session raises one clear error; closing again does nothing."""
    async with place.factory() as sessions:
        idle, reader, scope = sessions(), sessions.reader, sessions.begin()
        assert await sessions.aclose() == ()
        message = "The session factory 'default' is closed; it opens no sessions"
        for use in (sessions, sessions.begin, lambda: sessions.engine, lambda: sessions.reader):
            with pytest.raises(ClosedError, match=message):
                use()
        with pytest.raises(ClosedError, match=message):
            await idle.execute(text("SELECT 1"))
        for late in (reader.begin(), scope):
            with pytest.raises(ClosedError, match=message):
                async with late as session:
                    await session.execute(text("SELECT 1"))
        assert (await sessions.ping()).state == "closed"
        assert sessions.status().size == 0
        assert await sessions.aclose() == ()


@on(*ROOMY)
async def test_close_waits_for_others(place: Place) -> None:
    """A transaction in flight ends well; new sessions are refused, and no holder is cut off."""
    begun, go_on = place.half.signal(), place.half.signal()
    async with place.factory() as sessions:

        async def write() -> None:
            async with sessions.begin() as session:
                session.add(Row(id=1))
                await session.flush()
                begun.set()
                await go_on.wait()

        async def close() -> None:
            assert await sessions.aclose() == ()

        async with place.half.elsewhere(write):
            await begun.wait()
            async with place.half.elsewhere(close):
                with pytest.raises(ClosedError):
                    while True:
                        sessions()
                        await place.half.breathe()
                go_on.set()
    async with place.factory() as sessions:
        assert await ids(sessions) == [1]


@on(*ROOMY)
async def test_close_cuts_off_who_is_late(place: Place) -> None:
    """Who sits in a transaction past the deadline is cut off and named, and commits nothing."""
    begun, closed = place.half.signal(), place.half.signal()

    async def sit(sessions: AsyncSessionFactory) -> None:
        with pytest.raises(ClosedError, match="was closed, and this connection with it"):
            async with sessions.begin() as session:
                session.add(Row(id=1))
                await session.flush()
                begun.set()
                await closed.wait()

    async with place.factory() as sessions:
        async with place.half.elsewhere(lambda: sit(sessions)) as sitter:
            await begun.wait()
            (holder,) = await sessions.aclose(timeout=0.01)
            closed.set()
        assert holder.owner == sitter
        assert holder.where.startswith(f"{__file__}:")
        assert holder.where.endswith(".sit")
        assert sessions.status().size == 0
    async with place.factory() as sessions:
        assert await ids(sessions) == []


@on(*SERVERS)
async def test_close_cancels_what_runs(place: Place) -> None:
    """A statement that runs past the deadline is ended, and its caller told so."""
    begun = place.half.signal()

    async def sleep(sessions: AsyncSessionFactory) -> None:
        with pytest.raises((DBAPIError, ClosedError)):
            async with sessions.begin() as session:
                await session.execute(text("SELECT 1"))
                begun.set()
                await session.execute(text(ASLEEP[place.backend]))

    noticing = {"options": "-c client_connection_check_interval=20"}  # that its client is gone
    url = make_url(place.url)
    if place.backend == "postgresql":
        url = url.update_query_dict(noticing)
    async with Place(place.half, url).factory() as sessions:
        async with place.half.elsewhere(lambda: sleep(sessions)) as sleeper:
            await begun.wait()
            (holder,) = await sessions.aclose(timeout=0.05)
        assert holder.owner == sleeper


@on(*REAL)
async def test_close_cuts_its_own_at_once(place: Place) -> None:
    """What the closing thread or task holds itself cannot come back while it waits."""
    cut: list[Holder] = []
    async with place.factory() as sessions:
        with pytest.raises(ClosedError, match="was closed, and this connection with it"):
            async with sessions.begin() as session:
                session.add(Row(id=1))
                await session.flush()
                cut += await sessions.aclose(timeout=3600)
    assert [holder.owner for holder in cut] == [place.half.me()]
    async with place.factory() as sessions:
        assert await ids(sessions) == []


@on(*REAL)
async def test_close_does_not_wait_for_idle_sessions(place: Place) -> None:
    """A session without a connection does not delay the close."""
    async with place.factory() as sessions:
        idle = sessions()
        assert await sessions.aclose(timeout=3600) == ()
        await idle.close()


@on(*REAL)
async def test_the_block_closes_and_passes_errors_on(place: Place) -> None:
    """The factory is a context manager, whose block's error is neither swallowed nor replaced."""
    error, sessions = KeyError("mine"), place.make()
    with pytest.raises(KeyError) as caught:
        async with sessions as entered:
            assert entered == sessions
            assert sessions.engine == entered.engine
            raise error
    assert caught.value is error
    with pytest.raises(ClosedError):
        sessions()


@on(*FILES)
async def test_a_forgotten_factory_warns(place: Place) -> None:
    """A factory that is collected while its engine is open gives a warning, with what to do."""
    sessions = place.make(name="forgotten")
    engine = sessions.engine
    with pytest.warns(
        ResourceWarning, match=r"'forgotten'.* was not closed; use it as .*close\(\)"
    ):
        del sessions
        gc.collect()
    await engine.dispose()


@on(*FILES)
async def test_an_unused_or_closed_factory_does_not_warn(place: Place) -> None:
    """A factory that built nothing, or was closed, is collected in silence."""
    place.make()
    async with place.factory() as sessions:
        assert await ids(sessions) == []
    del sessions
    gc.collect()
