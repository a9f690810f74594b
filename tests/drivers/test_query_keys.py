"""What stands in a URL's query reaches the driver, or is refused before the first use."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import make_url, text

from sessionfactory import (
    AsyncSqlAlchemySessionFactory,
    DatabaseSettings,
    SettingsError,
    SqlAlchemySessionFactory,
)

if TYPE_CHECKING:
    from sessionfactory.testing import PostgresServer

ASYNC = frozenset({"asyncpg", "aiomysql", "asyncmy", "aiosqlite"})
DRIVERS = (
    *("postgresql+psycopg", "postgresql+psycopg2", "postgresql+pg8000", "postgresql+asyncpg"),
    *("mysql+pymysql", "mysql+mysqlconnector", "mysql+aiomysql", "mysql+asyncmy"),
    *("sqlite+pysqlite", "sqlite+aiosqlite"),
)


def make(url: str) -> object:
    """Make a factory of the half that a URL's driver is for; nothing is connected."""
    settings = DatabaseSettings(url)
    if make_url(url).get_driver_name() in ASYNC:
        return AsyncSqlAlchemySessionFactory(settings)
    return SqlAlchemySessionFactory(settings)


def server(drivername: str) -> str:
    """Return the beginning of a URL, to which a query can be added."""
    return f"{drivername}:///shop" if drivername.startswith("sqlite") else f"{drivername}://db/shop"


@pytest.mark.parametrize("drivername", DRIVERS)
@pytest.mark.parametrize("key", ["reconnect", "ssl-mode", "aplication_name"])
def test_unknown_key(drivername: str, key: str) -> None:
    """A key that the driver would choke on, or ignore, is refused when the factory is made."""
    with pytest.raises(SettingsError, match=rf"url: \w+ knows no query key '{key}'"):
        make(f"{server(drivername)}?{key}=1")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://db/shop?application_name=a&sslmode=require&keepalives=1",
        "postgresql+psycopg://db/shop?target_session_attrs=read-write&prepare_threshold=5",
        "postgresql+psycopg2://db/shop?application_name=a&sslmode=require&keepalives=1",
        "postgresql+pg8000://db/shop?application_name=a&connect_timeout=3",
        "postgresql+asyncpg://db/shop?application_name=a&sslmode=require&command_timeout=3",
        "mysql+pymysql://db/shop?charset=utf8mb4&ssl_ca=/ca.pem&read_timeout=3",
        "mysql+mysqlconnector://db/shop?charset=utf8mb4&connection_timeout=3&use_pure=true",
        "mysql+aiomysql://db/shop?charset=utf8mb4&ssl_ca=/ca.pem",
        "mysql+asyncmy://db/shop?charset=utf8mb4&ssl_ca=/ca.pem",
        "sqlite:///shop.db?cached_statements=3",
        "sqlite:///file:shop.db?uri=true&mode=rwc&whatever=1",
    ],
)
def test_known_keys(url: str) -> None:
    """What a driver takes, its library's keywords and SQLAlchemy's included, is not refused."""
    assert make(url)


def test_a_hint_for_encryption() -> None:
    """A key for encryption in another driver's words leads to the setting."""
    with pytest.raises(SettingsError, match="'ssl-mode'; for encryption, set tls"):
        make("mysql+pymysql://db/shop?ssl-mode=REQUIRED")


def test_the_check_reports_it() -> None:
    """``sessionfactory check`` names the key, without a connection."""
    environment = {**os.environ, "DATABASE_URL": "mysql+pymysql://db/shop?reconnect=true"}
    command = [sys.executable, "-m", "sessionfactory", "check"]
    found = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=50, check=False
    )
    assert found.returncode != 0
    assert "reconnect" in found.stdout + found.stderr


def test_an_argument_that_is_no_query_key() -> None:
    """An unknown argument of ``connect_args`` is an error of ours that names it."""
    settings = DatabaseSettings(
        "mysql+pymysql://127.0.0.1:1/shop", engine_options={"connect_args": {"reconnect": True}}
    )
    with (
        SqlAlchemySessionFactory(settings) as sessions,
        pytest.raises(SettingsError, match=r"pymysql does not take all .* 'reconnect'"),
        sessions() as session,
    ):
        session.execute(text("SELECT 1"))


@pytest.mark.parametrize("drivername", ["postgresql+psycopg", "postgresql+psycopg2"])
def test_several_hosts(drivername: str, postgres_server: PostgresServer) -> None:
    """Hosts with a comma between them, as libpq writes them, are tried one after the other."""
    url = make_url(postgres_server.url)
    login = f"{url.username}:{url.password}@" if url.password else f"{url.username}@"
    hosts = f"127.0.0.1:1,127.0.0.1:{url.port}"
    settings = DatabaseSettings(f"{drivername}://{login}{hosts}/{url.database}?connect_timeout=5")
    with SqlAlchemySessionFactory(settings) as sessions, sessions() as session:
        assert session.scalar(text("SELECT 1")) == 1


def test_several_hosts_async(postgres_server: PostgresServer) -> None:
    """The same on asyncpg."""
    url = make_url(postgres_server.url)
    login = f"{url.username}:{url.password}@" if url.password else f"{url.username}@"
    hosts = f"127.0.0.1:1,127.0.0.1:{url.port}"
    settings = DatabaseSettings(f"postgresql+asyncpg://{login}{hosts}/{url.database}")

    async def ask() -> object:
        async with AsyncSqlAlchemySessionFactory(settings) as sessions, sessions() as session:
            return await session.scalar(text("SELECT 1"))

    assert asyncio.run(ask()) == 1


@pytest.mark.parametrize("drivername", ["mysql+pymysql", "mysql+asyncmy", "postgresql+pg8000"])
def test_drivers_for_one_host(drivername: str) -> None:
    """A driver that knows one host only refuses several, and names those that try them."""
    with pytest.raises(SettingsError, match="connects to one host; asyncpg, psycopg, psycopg2"):
        make(f"{drivername}://db1,db2:7/shop")
