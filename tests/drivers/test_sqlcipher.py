"""SQLCipher: the passphrase reaches the library, and nothing else shows it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from sessionfactory import (
    DatabaseSettings,
    ReadOnlyError,
    SettingsError,
    SqlAlchemySessionFactory,
    SqliteSettings,
)

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("sqlcipher3")
PASSPHRASE = "correct horse canary-4711"


def settings_for(file: Path, password: str = PASSPHRASE) -> DatabaseSettings:
    """Return settings for an encrypted file."""
    return DatabaseSettings(
        f"sqlite+pysqlcipher:///{file}",
        password=password,
        sqlite=SqliteSettings(journal="keep"),
    )


def test_the_file_is_encrypted(tmp_path: Path) -> None:
    """What was written can be read again with the passphrase, and not by sqlite3."""
    file = tmp_path / "shop.db"
    with SqlAlchemySessionFactory(settings_for(file)) as sessions:
        with sessions.begin() as session:
            session.execute(text("CREATE TABLE t (a TEXT)"))
            session.execute(text("INSERT INTO t VALUES ('hello')"))
        assert PASSPHRASE not in repr(sessions.engine.url)
        assert sessions.engine.url.password is None
    with SqlAlchemySessionFactory(settings_for(file)) as sessions, sessions.begin() as session:
        assert session.scalar(text("SELECT a FROM t")) == "hello"
    assert b"hello" not in file.read_bytes()
    with closing(sqlite3.connect(file)) as plain, pytest.raises(sqlite3.DatabaseError):
        plain.execute("SELECT * FROM t")


def test_the_wrong_passphrase(tmp_path: Path) -> None:
    """Another passphrase opens nothing, and is in no text of the error."""
    file = tmp_path / "shop.db"
    with SqlAlchemySessionFactory(settings_for(file)) as sessions, sessions.begin() as session:
        session.execute(text("CREATE TABLE t (a TEXT)"))
    with (
        SqlAlchemySessionFactory(settings_for(file, "wrong canary-4712")) as sessions,
        pytest.raises(Exception, match="not a database") as caught,
        sessions() as session,
    ):
        session.execute(text("SELECT * FROM t"))
    assert "canary" not in f"{caught.value!r}"


def test_no_passphrase(tmp_path: Path) -> None:
    """A file without a passphrase would not be encrypted: it is refused."""
    settings = DatabaseSettings(f"sqlite+pysqlcipher:///{tmp_path}/shop.db")
    with pytest.raises(SettingsError, match="password: is the passphrase of the file"):
        SqlAlchemySessionFactory(settings)


def test_the_reader_cannot_write(tmp_path: Path) -> None:
    """Errors of the library's copy mean what sqlite3's do."""
    file = tmp_path / "shop.db"
    with SqlAlchemySessionFactory(settings_for(file)) as sessions:
        with sessions.begin() as session:
            session.execute(text("CREATE TABLE t (a TEXT)"))
        with (
            pytest.raises(Exception, match="readonly") as caught,
            sessions.reader.begin() as reading,
        ):
            reading.execute(text("INSERT INTO t VALUES ('no')"))
    assert isinstance(caught.value, ReadOnlyError)


def test_a_ping_uses_the_passphrase(tmp_path: Path) -> None:
    """A ping reads an encrypted file, refuses another passphrase, and makes no file."""
    file = tmp_path / "shop.db"
    with SqlAlchemySessionFactory(settings_for(file)) as sessions:
        assert sessions.ping().state == "unreachable"
        assert not file.exists()
        with sessions.begin() as session:
            session.execute(text("CREATE TABLE t (a TEXT)"))
        assert sessions.ping().ok
    with SqlAlchemySessionFactory(settings_for(file, "wrong canary-4712")) as sessions:
        health = sessions.ping()
    assert health.state == "refused"
    assert "encrypted with another key" in health.detail
    assert "canary" not in health.detail
