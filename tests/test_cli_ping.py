"""What `sessionfactory check` does to the databases that it looks at: it asks, and no more."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from sessionfactory import DatabaseSettings, SqlAlchemySessionFactory
from tests.support.commands import CANARY, run

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from sessionfactory.testing import PostgresServer


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """An existing SQLite file, which no process has open."""
    path = tmp_path / "app.db"
    with (
        SqlAlchemySessionFactory(DatabaseSettings(f"sqlite:///{path}")) as factory,
        factory.begin() as session,
    ):
        session.execute(text("CREATE TABLE t (x INTEGER)"))
    return path


@pytest.fixture
def deaf_port() -> Generator[int]:
    """A port of this machine that refuses connections, and that no other process can take."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


def contents(folder: Path) -> dict[str, bytes]:
    """Return everything that is in a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_check_does_not_touch_a_file(file: Path) -> None:
    """Neither `check` nor `check --ping` changes a SQLite file, or leaves one beside it."""
    before = contents(file.parent)

    results = [run("check", *ping, DATABASE_URL=f"sqlite:///{file}") for ping in ((), ("--ping",))]

    assert [result.status for result in results] == [0, 0]
    assert "ping: ok in " in results[1].out
    assert contents(file.parent) == before


@pytest.mark.parametrize("place", ["app.db", "no/such/directory/app.db"])
def test_check_creates_neither_a_file_nor_a_directory(tmp_path: Path, place: str) -> None:
    """A SQLite file that is not there yet is not made by looking for it; a ping misses it."""
    url = f"sqlite:///{tmp_path / place}"

    offline = run("check", DATABASE_URL=url)
    pinged = run("check", "--ping", DATABASE_URL=url)

    assert (offline.status, pinged.status) == (0, 1)
    assert f"ping: unreachable (there is no file {str(tmp_path / place)!r} yet)" in pinged.out
    assert list(tmp_path.iterdir()) == []


def test_a_ping_tells_who_does_not_answer(file: Path, deaf_port: int) -> None:
    """One database that refuses the connection makes the status 1; the others are told as well."""
    result = run(
        "check", "--ping", "--json", "--timeout", "20",
        DATABASE_URL=f"sqlite:///{file}",
        ANALYTICS_DATABASE_URL=f"postgresql://ada:{CANARY}@127.0.0.1:{deaf_port}/app",
    )  # fmt: skip

    answer = {name: table["ping"] for name, table in json.loads(result.out).items()}
    assert result.status == 1
    assert answer["default"]["state"] == "ok"
    assert answer["default"]["latency"] >= 0
    assert answer["analytics"]["state"] == "unreachable"
    assert "refused" in answer["analytics"]["detail"]
    assert CANARY not in result.out + result.err


def test_another_kind_of_factory_needs_no_engine(tmp_path: Path) -> None:
    """`check` asks no driver about a database whose factory another kind makes."""
    toml = tmp_path / "databases.toml"
    toml.write_text('[databases.default]\nurl = "nosuch://host/app"\nfactory = "builtins:dict"\n')

    assert run("check", "--toml", str(toml)).status == 0


def test_asynchronous_driver(postgres_server: PostgresServer) -> None:
    """A URL of the async half is checked, and pinged by its own driver."""
    result = run("check", "--ping", DATABASE_URL=postgres_server.async_url)
    assert result.status == 0
    assert "ping: ok" in result.out


def test_plaintext_to_far_away() -> None:
    """Where traffic may travel in the clear, a line says so; a machine reads it, too."""
    result = run("check", DATABASE_URL="postgresql://app@db.example.org/shop")
    assert "warning: the connection to db.example.org may not be encrypted" in result.out
    as_json = run("check", "--json", DATABASE_URL="postgresql://app@db.example.org/shop")
    assert "may not be encrypted" in json.loads(as_json.out)["default"]["warnings"][0]
