"""How many connections the server gives, and whether the processes may want more."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import create_engine

from sessionfactory import DatabaseSettings, PoolSettings
from sessionfactory.drivers.server_limit import server_limit, shortage
from tests.support.commands import run

if TYPE_CHECKING:
    from sessionfactory.testing import MariaDBServer, PostgresServer


@pytest.mark.parametrize(
    ("pool", "limit", "sentence"),
    [
        (PoolSettings(), None, None),
        (PoolSettings(), 15, None),
        (
            PoolSettings(),
            14,
            (
                "1 process with up to 5 + 10 connections may want 15, and the server gives 14:"
                " lower pool.size or pool.max_overflow"
            ),
        ),
        (
            PoolSettings(processes=4, size=3, max_overflow=2, server_connections=19),
            100,
            (
                "4 processes with up to 3 + 2 connections may want 20, and the server gives 19:"
                " lower pool.size or pool.max_overflow"
            ),
        ),
        (PoolSettings(processes=4, size=3, max_overflow=2, server_connections=20), None, None),
        (PoolSettings(kind="none"), 1, None),
    ],
)
def test_shortage(pool: PoolSettings, limit: int | None, sentence: str | None) -> None:
    """The sentence says what they may want, what there is, and what to lower."""
    assert shortage(DatabaseSettings("postgresql://db/shop", pool=pool), limit) == sentence


def test_postgresql(own_postgres: PostgresServer) -> None:
    """What superusers have for themselves does not count; a role's and a database's limits do."""
    engine = create_engine(own_postgres.url)
    with engine.connect() as connection:
        assert server_limit(connection) == 42 - 3
        connection.exec_driver_sql("ALTER ROLE CURRENT_USER CONNECTION LIMIT 7")
        assert server_limit(connection) == 7
        connection.rollback()
    engine.dispose()


def test_mariadb(mariadb_server: MariaDBServer) -> None:
    """MariaDB has one number."""
    engine = create_engine(mariadb_server.url)
    with engine.connect() as connection:
        shown = connection.exec_driver_sql("SHOW VARIABLES LIKE 'max_connections'").one()
        assert server_limit(connection) == int(shown[1])
    engine.dispose()


def test_no_server() -> None:
    """SQLite has none."""
    engine = create_engine("sqlite://")
    with engine.connect() as connection:
        assert server_limit(connection) is None
    engine.dispose()


@pytest.mark.parametrize("half", ["url", "async_url"])
def test_check(half: str, own_postgres: PostgresServer) -> None:
    """`check --ping` asks the server, through either half's driver, and warns."""
    environ = {"DATABASE_URL": getattr(own_postgres, half), "DATABASE_POOL_PROCESSES": "9"}
    result = run("check", "--ping", **environ)
    assert result.status == 0
    expected = "9 processes with up to 5 + 10 connections may want 135, and the server gives 39"
    assert f"warning: {expected}" in result.out
    as_json = json.loads(run("check", "--ping", "--json", **environ).out)
    assert expected in as_json["default"]["warnings"][0]
