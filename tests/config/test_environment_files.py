"""Variables that name a file: mounted secrets, and files that cannot be used."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from sessionfactory import (
    DatabaseSettings,
    SessionFactoryRegistry,
    SettingsError,
)

if TYPE_CHECKING:
    from pathlib import Path

URL = "postgresql://ada@db.example.org/app"
CANARY = "canary-4711"
MOST = 65_536


def _settings(environ: dict[str, str]) -> DatabaseSettings:
    return SessionFactoryRegistry.from_env(environ).settings()


def _password(file: Path) -> str:
    password = _settings({"DATABASE_URL": URL, "DATABASE_PASSWORD_FILE": str(file)}).password
    assert password is not None
    return password.reveal()


def _fault(file: Path | str) -> str:
    with pytest.raises(SettingsError, match="Invalid database settings") as caught:
        SessionFactoryRegistry.from_env({"DATABASE_URL": URL, "DATABASE_PASSWORD_FILE": str(file)})
    (fault,) = caught.value.faults
    assert fault.path == "default.password"
    # A name that is no place in the file system may be the secret itself, and is not shown.
    shown = f"DATABASE_PASSWORD_FILE={file}" if str(file).startswith("/") else None
    assert fault.origin == (shown or "DATABASE_PASSWORD_FILE")
    return fault.problem


@pytest.mark.parametrize(
    ("content", "password"),
    [
        (b"pw", "pw"),
        (b"pw\n", "pw"),
        (b"pw\r\n", "pw"),
        (b"pw\n\n", "pw\n"),
        (b"pw\r\n\r\n", "pw\r\n"),
        (b"pw \n", "pw "),
        (b" pw", " pw"),
        (b"p\nw\n", "p\nw"),
        (b"pw\r", "pw\r"),
        ("pässwörd\n".encode(), "pässwörd"),
        (b"x" * MOST, "x" * MOST),
    ],
    ids=lambda given: repr(given)[:20],
)
def test_one_trailing_newline_is_dropped(content: bytes, password: str, tmp_path: Path) -> None:
    """The value is the text of the file without one newline at its end, of either kind."""
    file = tmp_path / "secret"
    file.write_bytes(content)
    assert _password(file) == password


def test_every_setting_may_come_from_a_file(tmp_path: Path) -> None:
    """Any variable may name a file; its value is read like the variable's own."""
    environ: dict[str, str] = {}
    for suffix, value in {"URL": URL, "POOL_SIZE": "7", "ECHO": "true"}.items():
        file = tmp_path / suffix
        file.write_text(f"{value}\n", encoding="utf-8")
        environ[f"DATABASE_{suffix}_FILE"] = str(file)
    settings = _settings(environ)
    assert (settings.pool.size, settings.echo) == (7, True)
    assert settings.url == DatabaseSettings(URL).url


def test_a_fault_of_a_value_names_its_file(tmp_path: Path) -> None:
    """A value that cannot be used is told with the variable and the file, and not quoted."""
    file = tmp_path / "url"
    file.write_text(f"'postgresql://ada:{CANARY}@db/app'", encoding="utf-8")
    with pytest.raises(SettingsError, match="quotation mark") as caught:
        SessionFactoryRegistry.from_env({"DATABASE_URL_FILE": str(file)})
    assert f"default.url (DATABASE_URL_FILE={file}): " in str(caught.value)
    assert CANARY not in str(caught.value)


def test_a_missing_file_is_a_fault(tmp_path: Path) -> None:
    """A file that is not there is a fault that says so."""
    assert _fault(tmp_path / "none") == "the file cannot be read: No such file or directory"


def test_a_directory_is_a_fault(tmp_path: Path) -> None:
    """A directory in place of a file is a fault that says so."""
    assert _fault(tmp_path) == "the file cannot be read: it is a directory"


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_a_file_without_permission_is_a_fault(tmp_path: Path) -> None:
    """A file that may not be read is a fault that says so."""
    file = tmp_path / "secret"
    file.write_text("pw", encoding="utf-8")
    file.chmod(0)
    assert _fault(file) == "the file cannot be read: Permission denied"


@pytest.mark.parametrize("name", ["a\0b", "\0"])
def test_a_name_that_no_file_has_is_a_fault(name: str) -> None:
    """A name that the system does not take is a fault, not a ValueError from inside."""
    assert _fault(name) == "the file cannot be read: invalid file name"


def test_a_name_with_a_lone_surrogate_is_a_fault() -> None:
    """A name that cannot be encoded is a fault about the name, not about the text in the file."""
    assert _fault("\ud800") == "the file cannot be read: invalid file name"


def test_a_name_that_is_too_long_is_a_fault() -> None:
    """A name longer than the system takes is a fault."""
    assert _fault("x" * 5000).startswith("the file cannot be read: ")


def test_a_file_that_is_no_text_is_a_fault(tmp_path: Path) -> None:
    """A file that is not UTF-8 is a fault that says so."""
    file = tmp_path / "secret"
    file.write_bytes(b"p\xe4ss")
    assert _fault(file) == "the file is not UTF-8 text"


@pytest.mark.parametrize(
    "content",
    [b"x" * (MOST + 1), b"x" * (MOST * 2), "ä".encode() * MOST, b"x" + "ä".encode() * MOST],
    ids=["one more", "twice", "wide", "wide and odd"],
)
def test_a_file_that_is_too_large_is_a_fault(content: bytes, tmp_path: Path) -> None:
    """A file of more bytes than any setting has is a fault, and never cut silently."""
    file = tmp_path / "secret"
    file.write_bytes(content)
    assert _fault(file) == f"the file holds more than {MOST} bytes"


def test_a_url_in_place_of_a_file_name_is_not_quoted() -> None:
    """A URL in ``…_FILE`` itself is a fault that does not show the URL."""
    with pytest.raises(SettingsError, match="DATABASE_URL_FILE") as caught:
        SessionFactoryRegistry.from_env(
            {"DATABASE_URL_FILE": f"postgresql://ada:{CANARY}@db.example.org/app"}
        )
    assert CANARY not in f"{caught.value} {caught.value!r}"
