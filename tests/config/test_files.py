"""Files that a configuration names, which may be no ordinary files."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sessionfactory import SessionFactoryRegistry, SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable

URL = "postgresql://ada@db.internal/app"


def fifo(directory: Path) -> Path:
    """Return a pipe that nothing ever writes into."""
    path = directory / "fifo"
    os.mkfifo(path)
    return path


def listening(directory: Path) -> Path:
    """Return the file of a socket."""
    path = directory / "socket"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
    return path


def endless(_: Path) -> Path:
    """Return a device that has no end."""
    return Path("/dev/zero")


def sparse(directory: Path) -> Path:
    """Return a huge file, which takes no room."""
    path = directory / "huge"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    return path


def folder(directory: Path) -> Path:
    """Return a directory."""
    return directory


STRANGE = [fifo, listening, endless, sparse, folder]


@pytest.mark.parametrize("make", STRANGE)
def test_a_secret_is_read_from_a_regular_file(make: Callable[[Path], Path], tmp_path: Path) -> None:
    """Whatever else a variable names is a fault at once: nothing blocks, and nothing fills up."""
    environ = {"DATABASE_URL": URL, "DATABASE_PASSWORD_FILE": str(make(tmp_path))}

    with pytest.raises(SettingsError, match=r"default\.password .*(cannot|more than 65536)"):
        SessionFactoryRegistry.from_env(environ)


@pytest.mark.parametrize("make", STRANGE)
def test_so_is_a_configuration(make: Callable[[Path], Path], tmp_path: Path) -> None:
    """The same holds for a TOML file."""
    path = make(tmp_path)

    with pytest.raises(SettingsError, match=r"cannot be read|more than 4194304"):
        SessionFactoryRegistry.from_toml(path)


def test_a_secret_that_becomes_a_pipe_is_refused_when_it_is_read_again(tmp_path: Path) -> None:
    """A password's file is read for each connection, by the same rule."""
    file = tmp_path / "password"
    file.write_text("first")
    environ = {"DATABASE_URL": URL, "DATABASE_PASSWORD_FILE": str(file)}
    password = SessionFactoryRegistry.from_env(environ).settings().password
    assert password is not None
    file.unlink()
    os.mkfifo(file)

    with pytest.raises(SettingsError, match="it is a pipe, socket or device"):
        password.reveal()
