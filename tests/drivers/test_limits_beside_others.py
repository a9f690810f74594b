"""Time limits of the settings stand beside what the user says elsewhere, which wins."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import make_url, text

from sessionfactory import (
    AsyncSqlAlchemySessionFactory,
    DatabaseSettings,
    SettingsError,
    SqlAlchemySessionFactory,
)
from sessionfactory.drivers.dialects import with_driver
from sessionfactory.engine import timeouts

if TYPE_CHECKING:
    from pathlib import Path

    from sessionfactory.testing import PostgresServer

LIMIT_AND_JIT = text("SELECT current_setting('statement_timeout'), current_setting('jit')")


def connect_arguments(url: str, given: dict[str, object] | None = None) -> dict[str, object]:
    """Return the arguments for the time limit of connecting, which is the default's."""
    settings = DatabaseSettings(url)
    return timeouts.connect_arguments(settings, with_driver(settings.url), given or {})


def found_by(url: object, arguments: dict[str, Any] | None = None) -> tuple[object, ...]:
    """Return the time limit and another setting that a session of the sync half has."""
    options = {"connect_args": arguments} if arguments else {}
    settings = DatabaseSettings(str(url), statement_timeout=5, engine_options=options)
    with SqlAlchemySessionFactory(settings) as sessions, sessions() as session:
        return tuple(session.execute(LIMIT_AND_JIT).one())


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_options_of_the_environment(
    driver: str, postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PGOPTIONS go on to hold, which libpq would drop for an argument."""
    monkeypatch.setenv("PGOPTIONS", "-c jit=on")
    assert found_by(postgres_server.url_for(driver)) == ("5s", "on")


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_options_of_a_service(
    driver: str, postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """So do the options of a service file, and its time limit for connecting."""
    url = make_url(postgres_server.url)
    file = tmp_path / "services"
    file.write_text(
        f"# ours\n[shop]\nhost=127.0.0.1\nport={url.port}\nuser={url.username}\n"
        f"password={url.password}\ndbname={url.database}\noptions=-c jit=on\nconnect_timeout=7\n"
    )
    monkeypatch.setenv("PGSERVICEFILE", str(file))
    assert found_by(f"postgresql+{driver}:///?service=shop") == ("5s", "on")
    assert connect_arguments(f"postgresql+{driver}:///?service=shop") == {}
    assert connect_arguments(f"postgresql+{driver}:///?service=other") == {"connect_timeout": 10}


def test_a_service_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A file that is no service file is libpq's to report."""
    (tmp_path / "pg_service.conf").write_text("no section here\n")
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "missing"))
    monkeypatch.setenv("PGSYSCONFDIR", str(tmp_path))
    monkeypatch.setenv("PGSERVICE", "shop")
    assert connect_arguments("postgresql:///") == {"connect_timeout": 10}


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_options_of_connect_args(driver: str, postgres_server: PostgresServer) -> None:
    """Options of ``connect_args`` are put behind the limits."""
    url = postgres_server.url_for(driver)
    assert found_by(url, {"options": "-c jit=on"}) == ("5s", "on")


def test_parameters_of_pg8000(postgres_server: PostgresServer) -> None:
    """The start-up parameters of pg8000 are kept as well."""
    url = postgres_server.url_for("pg8000")
    assert found_by(url, {"startup_params": {"jit": "on"}}) == ("5s", "on")


@pytest.mark.parametrize("given", [{"jit": "on"}, {"options": "-c jit=on"}])
def test_settings_of_asyncpg(given: dict[str, str], postgres_server: PostgresServer) -> None:
    """The server settings of asyncpg are kept, and its options put behind the limits."""
    settings = DatabaseSettings(
        postgres_server.async_url,
        statement_timeout=5,
        engine_options={"connect_args": {"server_settings": given}},
    )

    async def ask() -> tuple[object, ...]:
        async with AsyncSqlAlchemySessionFactory(settings) as sessions, sessions() as session:
            return tuple((await session.execute(LIMIT_AND_JIT)).one())

    assert asyncio.run(ask()) == ("5s", "on")


def test_the_same_limit_twice() -> None:
    """The limit itself, given in both places, is refused: one of the two would lose."""
    settings = DatabaseSettings(
        "postgresql+asyncpg://db/shop",
        statement_timeout=5,
        engine_options={"connect_args": {"server_settings": {"statement_timeout": "1s"}}},
    )
    with pytest.raises(SettingsError, match="server_settings sets statement_timeout; give it in"):
        AsyncSqlAlchemySessionFactory(settings)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://db/shop?connect_timeout=60",
        "postgresql+psycopg2://db/shop?connect_timeout=60",
        "postgresql+pg8000://db/shop?timeout=60",
        "postgresql+asyncpg://db/shop?timeout=60",
        "postgresql+asyncpg://db/shop?connect_timeout=60",
        "mysql+pymysql://db/shop?connect_timeout=60",
        "mysql+mysqlconnector://db/shop?connect_timeout=60",
        "mysql+aiomysql://db/shop?connect_timeout=60",
    ],
)
def test_the_urls_time_limit(url: str) -> None:
    """A time limit for connecting in the URL wins over the default."""
    assert connect_arguments(url) == {}
    assert connect_arguments(url.partition("?")[0]) != {}


def test_the_environments_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """PGCONNECT_TIMEOUT wins as well, on the drivers that read it; so do ``connect_args``."""
    assert connect_arguments("mysql+pymysql://db/shop", {"connect_timeout": 60}) == {}
    monkeypatch.setenv("PGCONNECT_TIMEOUT", "60")
    assert connect_arguments("postgresql+psycopg://db/shop") == {}
    assert connect_arguments("postgresql+asyncpg://db/shop") == {"timeout": 10.0}
