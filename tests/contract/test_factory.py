"""What the factory that owns an engine promises beyond the interface."""

from __future__ import annotations

import os
import socket
import time
from typing import TYPE_CHECKING, Final, cast

import pytest
from sqlalchemy import insert, make_url, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as SqlAlchemyTimeoutError
from sqlalchemy.ext.asyncio import AsyncSession

from sessionfactory import (
    AsyncSqlAlchemySessionFactory,
    DatabaseSettings,
    Health,
    PoolExhaustedError,
    PoolSettings,
    ReadOnlyError,
    SessionSettings,
    SettingsError,
)
from sessionfactory.testing import FaultProxy
from tests.support.awaited import OwnAsyncSession, OwnSession, sync_of
from tests.support.places import FILES, REAL, ROOMY, SERVERS, Place, Row, ids, on

if TYPE_CHECKING:
    from pathlib import Path

    from sessionfactory import AsyncSessionFactory


BUSY: Final = {  # a sleep that MariaDB interrupts ends without an error
    "postgresql": "SELECT pg_sleep(600)",
    "mysql": "SELECT count(*) FROM seq_1_to_100000 a, seq_1_to_100000 b",
}
LIMITS: Final = {
    "postgresql": {
        "SHOW statement_timeout": "250ms",
        "SHOW lock_timeout": "3s",
        "SHOW idle_in_transaction_session_timeout": "2min",
    },
    "mysql": {
        "SELECT @@max_statement_time": "0.25",
        "SELECT @@innodb_lock_wait_timeout": "3",
        "SELECT @@lock_wait_timeout": "3",
        "SELECT @@idle_transaction_timeout": "120",
    },
}


@on(*FILES)
async def test_session_class_and_settings_reach_every_session(place: Place) -> None:
    """Sessions of a call, of begin() and of the reader are all made as the factory was told."""
    told = SessionSettings(autoflush=False, expire_on_commit=True)
    async with (
        place.factory(session=told, session_class=OwnAsyncSession) as sessions,
        sessions() as one,
        sessions.begin() as two,
        sessions.reader() as three,
        sessions.reader.begin() as four,
    ):
        for session in (one, two, three, four):
            assert isinstance(session.sync_session, OwnSession)
            assert not session.sync_session.autoflush
            assert session.sync_session.expire_on_commit


@on(*FILES)
async def test_the_default_is_a_plain_session(place: Place) -> None:
    """Without a session class, sessions flush on queries and do not expire what they committed."""
    async with place.factory() as sessions, sessions() as session:
        assert type(session.sync_session).__qualname__ == "Session"
        assert session.sync_session.autoflush
        assert not session.sync_session.expire_on_commit


@on(*FILES)
async def test_nothing_is_built_before_use(place: Place, tmp_path: Path) -> None:
    """An unused factory has no engine, no file, and nothing to close."""
    sessions = place.make()
    assert (sessions.status().size, sessions.status().in_use) == (0, 0)
    assert await sessions.aclose() == ()
    assert os.listdir(tmp_path) == []  # noqa: PTH208 - the async half would block


@on(*REAL)
async def test_the_engine_is_the_sessions_own(place: Place) -> None:
    """There is one engine, and what it does goes through the pool of the sessions."""
    async with place.factory() as sessions:
        assert sessions.engine == sessions.engine
        async with sessions.engine.begin() as connection:
            await connection.execute(insert(Row).values(id=1))
            assert sessions.status().in_use == 1
        assert await ids(sessions) == [1]
        assert sessions.status().size == 1


@on(*REAL)
async def test_the_reader_cannot_write(place: Place) -> None:
    """The database refuses a reader's writes, on flush and in raw SQL; others write on."""
    async with place.factory() as sessions:
        async with sessions.begin() as session:
            session.add(Row(id=1))
        assert await ids(sessions.reader) == [1]
        with pytest.raises(ReadOnlyError, match=r"read-only.*Write in sessions\.begin\(\)"):
            async with sessions.reader.begin() as session:
                session.add(Row(id=2))
        with pytest.raises(ReadOnlyError):
            async with sessions.reader() as session:
                await session.execute(text("INSERT INTO contract_row VALUES (3)"))
        async with sessions.begin() as session:
            session.add(Row(id=4))
        assert await ids(sessions) == [1, 4]
        assert sessions.status().size == 1  # on the same pool


@on(*REAL)
async def test_ping(place: Place) -> None:
    """A database that answers is well, and the ping leaves nothing out."""
    async with place.factory() as sessions:
        health = await sessions.ping()
        assert health.ok, health
        assert health.latency is not None
        assert sessions.status().in_use == 0


@on(*SERVERS)
async def test_ping_of_a_full_pool(place: Place) -> None:
    """A pool that is all out is saturated, at once and without waiting."""
    async with place.factory(pool=PoolSettings(size=1, max_overflow=0)) as sessions:
        async with sessions() as session:
            await session.execute(text("SELECT 1"))
            assert (await sessions.ping(timeout=3600)).state == "saturated"
        assert (await sessions.ping()).ok


@on(*SERVERS)
async def test_ping_of_a_server_that_turns_us_away(place: Place) -> None:
    """A wrong password is a refusal; the detail has the server's words and no secret."""
    wrong = Place(place.half, make_url(place.url).set(password="canary-4711"))
    async with wrong.make() as sessions:
        health = await sessions.ping()
    assert health.state == "refused", health
    assert "canary" not in repr(health)


@on(*SERVERS)
async def test_ping_of_nobody(place: Place) -> None:
    """A port without a listener is unreachable."""
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        port = unheard.getsockname()[1]
        async with Place(place.half, make_url(place.url).set(port=port)).make() as sessions:
            health = await sessions.ping()
    assert health.state == "unreachable", health


@on(*SERVERS)
async def test_ping_of_a_silent_server(place: Place) -> None:
    """A network that swallows everything holds neither a ping nor the close after it."""
    with FaultProxy(place.url) as proxy:
        silent = Place(place.half, proxy.url)
        async with silent.make(name="connected") as sessions, silent.make() as others:
            assert (await sessions.ping()).ok
            proxy.black_hole()
            health = await sessions.ping(timeout=0.05)
            assert (health.state, health.latency) == ("slow", None), health
            assert health.detail == "connected, but no answer within 0.05 s"
            assert await others.ping(timeout=0.05) == Health(
                "unreachable", None, "no connection within 0.05 s"
            )
            began = time.monotonic()
            assert len(await sessions.aclose(timeout=0)) == 1
            assert await others.aclose(timeout=0) == ()
            assert time.monotonic() - began < 5


@on(*REAL)
async def test_status_is_true_while_a_connection_is_out(place: Place) -> None:
    """It tells who has the connection, since when, and where in the user's code it was taken."""
    async with place.factory() as sessions:
        limit = sessions.status().limit
        async with sessions.begin() as session:
            assert sessions.status().in_use == 0  # until it is needed
            session.add(Row(id=1))
            await session.flush()
            status = sessions.status()
        (holder,) = status.holders
        assert (status.size, status.in_use, status.idle, status.waiting) == (1, 1, 0, 0)
        assert holder.owner == place.half.me()
        assert holder.where.startswith(f"{__file__}:")
        assert holder.where.endswith(" in test_status_is_true_while_a_connection_is_out")
        assert 0 <= holder.held < 30
        status = sessions.status()
        assert (status.limit, status.size, status.in_use, status.idle) == (limit, 1, 0, 1)
        assert status.holders == ()


@on(*ROOMY)
async def test_status_counts_overflow_and_those_who_wait(place: Place) -> None:
    """What is open beyond the pool's size is overflow; who waits for a connection is counted."""
    async with place.factory(pool=PoolSettings(size=1, max_overflow=1)) as sessions:

        async def ask() -> None:
            assert await ids(sessions) == []

        async with sessions() as one, sessions() as two:
            await one.execute(text("SELECT 1"))
            await two.execute(text("SELECT 1"))
            assert sessions.status().overflow == 1
            async with place.half.elsewhere(ask):
                while not sessions.status().waiting:
                    await place.half.breathe()
                await two.close()
        assert sessions.status().waiting == 0
        assert (sessions.status().size, sessions.status().overflow) == (1, 0)


@on(*REAL)
async def test_an_exhausted_pool_names_its_holders(place: Place) -> None:
    """Who gets no connection in time is told who has them; SQLAlchemy's handlers catch it."""
    async with (
        place.factory(pool=PoolSettings(size=1, max_overflow=0)) as sessions,
        sessions() as session,
    ):
        await session.execute(text("SELECT 1"))
        engine = sync_of(sessions.engine)
        engine.pool._timeout = 0.05  # from now on: to connect may take longer
        with pytest.raises(PoolExhaustedError) as caught:
            async with place.half.elsewhere(lambda: _use(sessions)):
                pass
        assert "came free within 0.05 s" in str(caught.value)
        (holder,) = caught.value.holders
        assert holder.owner == place.half.me()
        assert str(holder.where) in str(caught.value)
        assert isinstance(caught.value, SqlAlchemyTimeoutError)


async def _use(sessions: AsyncSessionFactory) -> None:
    await ids(sessions)


@on(*ROOMY)
async def test_a_connection_per_checkout(place: Place) -> None:
    """With kind="none", a connection is opened per checkout and none is kept."""
    async with place.factory(pool=PoolSettings(kind="none")) as sessions:
        async with sessions() as session:
            await session.execute(text("SELECT 1"))
            status = sessions.status()
        assert (status.limit, status.size, status.in_use) == (None, 1, 1)
        assert sessions.status().size == 0


@on(*SERVERS)
async def test_time_limits(place: Place) -> None:
    """Every connection obeys the limits, and a statement that runs too long is ended."""
    async with (
        place.factory(
            statement_timeout=0.25, lock_timeout=3, idle_in_transaction_timeout=120
        ) as sessions,
        sessions() as session,
    ):
        for query, value in LIMITS[place.backend].items():
            assert str(await session.scalar(text(query))) == value
        with pytest.raises(DBAPIError, match=r"statement timeout|max_statement_time|interrupted"):
            await session.execute(text(BUSY[place.backend]))


@on(*FILES)
async def test_a_url_where_settings_belong(place: Place) -> None:
    """It is told so, without quoting the URL."""
    wrong = cast("DatabaseSettings", "postgresql://u:CANARY@h/d")
    with pytest.raises(SettingsError, match=r"expected DatabaseSettings: DatabaseSettings\(url\)"):
        place.half.make(AsyncSqlAlchemySessionFactory, wrong, session_class=AsyncSession)


@on(*FILES)
async def test_an_unknown_engine_option(place: Place) -> None:
    """An option that create_engine does not know is told at first use, and nothing stays behind."""
    sessions = place.make(engine_options={"ecko": True})
    with pytest.raises(SettingsError, match="engine_options: SQLAlchemy does not take them"):
        sessions()
    assert await sessions.aclose() == ()


@on(*FILES)
async def test_it_shows_its_name_and_no_more(place: Place) -> None:
    """The repr names the factory and its database."""
    assert "SqlAlchemySessionFactory(name='main', url='" in repr(place.make(name="main"))
