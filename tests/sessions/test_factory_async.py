"""What only the async half has: its drivers, greenlet, and session classes that are awaited."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Final

import pytest
from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import AsyncSession, AsyncSessionTransaction

from sessionfactory import (
    AsyncSqlAlchemySessionFactory,
    ClosedError,
    DatabaseSettings,
    SettingsError,
    SqlAlchemySessionFactory,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import URL, Engine
    from sqlalchemy.orm import Session

    from sessionfactory.testing import PostgresServer

ONE: Final = text("SELECT 1")
ASYNCPG: Final = "postgresql+asyncpg://app@db/app"


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("url", "driver"),
    [
        ("postgresql://db/app", "psycopg"),
        ("postgres://db/app", "psycopg"),
        ("postgresql+psycopg://db/app", "psycopg"),
        ("postgresql+asyncpg://db/app", "asyncpg"),
        ("mysql://db/app", "asyncmy"),
        ("mariadb://db/app", "asyncmy"),
        ("mysql+aiomysql://db/app", "aiomysql"),
        ("sqlite://", "aiosqlite"),
        ("sqlite+aiosqlite://", "aiosqlite"),
    ],
)
async def test_driver_of_a_url(url: str, driver: str) -> None:
    """A URL without a driver serves both halves, whatever SQLAlchemy takes it for."""
    async with AsyncSqlAlchemySessionFactory(DatabaseSettings(url)) as sessions:
        assert sessions.engine.dialect.is_async
        assert sessions.engine.dialect.driver == driver


@pytest.mark.parametrize(
    ("url", "what_to_do"),
    [
        ("postgresql+psycopg2://db/app", "a synchronous driver; {} write postgresql://"),
        ("mysql+pymysql://db/app", "a synchronous driver; {} write mysql://"),
        ("sqlite+pysqlite://", "a synchronous driver; {} write sqlite://"),
        ("mssql+aioodbc://db/app", "the driver 'aioodbc' cannot be imported; pip install aioodbc"),
    ],
)
def test_driver_of_the_sync_half(url: str, what_to_do: str) -> None:
    """A driver that cannot serve this half is refused, with the URL to write."""
    with pytest.raises(SettingsError, match="Invalid database settings: url: ") as caught:
        AsyncSqlAlchemySessionFactory(DatabaseSettings(url))
    assert str(caught.value).endswith(what_to_do.format("for AsyncSqlAlchemySessionFactory"))


@pytest.mark.parametrize(
    ("url", "instead"),
    [
        ("postgresql+asyncpg://db/app", "postgresql://"),
        ("mysql+aiomysql://db/app", "mysql://"),
        ("mysql+asyncmy://db/app", "mysql://"),
        ("sqlite+aiosqlite://", "sqlite://"),
    ],
)
def test_driver_of_the_async_half(url: str, instead: str) -> None:
    """Asked of the sync half, an asynchronous driver is refused, with the URL to write."""
    with pytest.raises(SettingsError, match="is an asynchronous driver") as caught:
        SqlAlchemySessionFactory(DatabaseSettings(url))
    assert str(caught.value).endswith(f"; for SqlAlchemySessionFactory write {instead}")


# The query of a URL.


async def shown(url: URL, *names: str, limit: float | None = None) -> list[str]:
    """Return settings of a connection, as PostgreSQL shows them."""
    settings = DatabaseSettings(url, lock_timeout=limit, statement_timeout=limit)
    async with AsyncSqlAlchemySessionFactory(settings) as sessions, sessions() as session:
        return [str(await session.scalar(text(f"SHOW {name}"))) for name in names]


@pytest.mark.asyncio
@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
async def test_query_keys_mean_the_same_to_every_driver(
    postgres_server: PostgresServer, driver: str
) -> None:
    """Libpq's keys are translated for asyncpg; the options of the URL win over the settings."""
    url = make_url(postgres_server.url_for(driver=driver)).update_query_dict(
        {
            "sslmode": "disable",
            "channel_binding": "prefer",
            "connect_timeout": "7",
            "application_name": "a b&c",
            "options": "-c lock_timeout=7000 -c search_path=elsewhere",
        }
    )
    names = ("application_name", "search_path", "lock_timeout", "statement_timeout")
    assert await shown(url, *names) == ["a b&c", "elsewhere", "7s", "0"]
    assert await shown(url, *names, limit=4) == ["a b&c", "elsewhere", "7s", "4s"]


@pytest.mark.asyncio
async def test_asyncpgs_own_keys_are_kept(postgres_server: PostgresServer) -> None:
    """What asyncpg and SQLAlchemy's dialect for it take in a URL reaches them."""
    url = make_url(postgres_server.async_url).update_query_dict(
        {"command_timeout": "5", "prepared_statement_cache_size": "7"}
    )
    assert await shown(url, "application_name") == [""]


@pytest.mark.parametrize(
    ("query", "faults"),
    [
        (
            {"keepalives": "1", "frobnicate": "1"},
            {
                "asyncpg knows no query key 'keepalives'",
                "asyncpg knows no query key 'frobnicate'",
            },
        ),
        (
            {"channel_binding": "require"},
            {"asyncpg has no channel binding; take channel_binding away, or use psycopg"},
        ),
    ],
)
def test_query_keys_that_asyncpg_does_not_know(query: Mapping[str, str], faults: set[str]) -> None:
    """They are refused when the factory is made, all at once, and not at the first connection."""
    settings = DatabaseSettings(make_url(ASYNCPG).update_query_dict(query))
    with pytest.raises(SettingsError, match="asyncpg") as caught:
        AsyncSqlAlchemySessionFactory(settings)
    assert {fault.problem for fault in caught.value.faults} == faults
    assert {fault.path for fault in caught.value.faults} == {"url"}


# greenlet, which SQLAlchemy 2.1 does not bring along.


def without_greenlet(code: str) -> str:
    """Return what code prints in an interpreter without greenlet."""
    lines = ["import sys", "sys.modules['greenlet'] = None", "from sessionfactory import *", code]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", "\n".join(lines)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_sync_half_needs_no_greenlet() -> None:
    """A program without the async half does not need the packages of that half."""
    code = """
from sessionfactory.testing import InMemorySessionFactory, RollbackSessionFactory
with SessionFactoryRegistry.from_env({"DATABASE_URL": "sqlite://"}) as registry:
    with RollbackSessionFactory(registry.get()) as sessions, sessions.begin() as session:
        print(session.connection().exec_driver_sql("SELECT 42").scalar(), registry.ping())
"""
    assert without_greenlet(code).startswith("42 {'default': Health(state='ok'")


@pytest.mark.parametrize(
    "code",
    [
        "AsyncSqlAlchemySessionFactory(settings)",
        "AsyncSessionFactoryRegistry({'default': settings}).get()",
        "AsyncInMemorySessionFactory(MetaData())",
        "AsyncCloningSessionFactory(settings, MetaData())",
    ],
)
def test_the_error_without_greenlet_names_the_extra(code: str) -> None:
    """It can be imported, and says what to install when a factory is made."""
    told = without_greenlet(f"""
from sqlalchemy import MetaData
from sessionfactory.testing import *
settings = DatabaseSettings("sqlite://")
try:
    {code}
except SettingsError as error:
    print(error)
""")
    expected = 'an async session factory needs greenlet; pip install "sessionfactory[asyncio]"'
    assert told.endswith(expected)


def test_the_null_factory_needs_no_greenlet() -> None:
    """A registry that knows no database says so first, and not what else would be missing."""
    told = without_greenlet("""
try:
    AsyncSessionFactoryRegistry().get().begin()
except NotConfiguredError as error:
    print(error)
""")
    assert told.startswith("Database 'default' is not configured")


# Session classes of users.


class Noting(AsyncSession):
    """A session class whose methods do more than SQLAlchemy's."""

    done: list[str]

    def __init__(self, *arguments: object, **keywords: object) -> None:
        super().__init__(*arguments, **keywords)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # handed on
        self.done = []

    def begin(self) -> AsyncSessionTransaction:
        self.done.append("begin")
        return super().begin()

    async def commit(self) -> None:
        await super().commit()
        self.done.append("commit")

    async def rollback(self) -> None:
        await super().rollback()
        self.done.append("rollback")

    async def close(self) -> None:
        await super().close()
        self.done.append("close")


@pytest.mark.asyncio
async def test_what_a_session_class_overrides_still_runs(url: str) -> None:
    """The class of the user goes before what makes its sessions finish what they began."""
    async with AsyncSqlAlchemySessionFactory(
        DatabaseSettings(url), session_class=Noting
    ) as sessions:
        async with sessions() as called:
            await called.execute(text("SELECT 1"))
            await called.commit()
            await called.execute(text("SELECT 1"))
            await called.rollback()
            async with called.begin():
                pass
        async with sessions.begin() as begun:
            await begun.execute(text("SELECT 1"))
        with pytest.raises(KeyError):
            async with sessions.reader.begin() as read:
                await read.execute(text("SELECT 1"))
                raise KeyError
        assert isinstance(called, Noting)
        assert called.done == ["commit", "rollback", "begin", "close"]
        assert begun.done == ["close"]
        assert sessions.status().in_use == 0


@pytest.mark.asyncio
async def test_closed_while_the_first_session_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """A close at the moment of the first session is seen, then and later."""
    opener = AsyncSqlAlchemySessionFactory[AsyncSession]._opener

    def closes(self: AsyncSqlAlchemySessionFactory, bind: Engine) -> object:
        made = opener(self, bind)
        self._managed.refuse_sessions()
        return made

    monkeypatch.setattr(AsyncSqlAlchemySessionFactory, "_opener", closes)
    async with AsyncSqlAlchemySessionFactory(DatabaseSettings("sqlite://")) as sessions:
        for use in (sessions, sessions.begin, sessions, sessions.begin):
            with pytest.raises(ClosedError):
                use()


@pytest.mark.asyncio
async def test_where_a_session_is_held() -> None:
    """A holder has the line that awaits, or the one in a function under ``run_sync``."""

    def work(session: Session) -> None:
        session.execute(ONE)

    async with AsyncSqlAlchemySessionFactory(DatabaseSettings("sqlite://")) as sessions:
        async with sessions() as session:
            await session.execute(ONE)
            (holder,) = sessions.status().holders
            assert holder.where.startswith(f"{__file__}:")
            assert holder.where.endswith("in test_where_a_session_is_held")
        async with sessions() as session:
            await session.run_sync(work)
            (holder,) = sessions.status().holders
            assert holder.where.endswith("in test_where_a_session_is_held.<locals>.work")
