from __future__ import annotations

import json
import pwd
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sessionfactory.testing.servers import postgres
from sessionfactory.testing.servers._binaries import find_postgres
from sessionfactory.testing.servers._process import ServerError, reachable
from sessionfactory.testing.servers.postgres import PostgresServer
from tests.support.observe import as_root, linux_only, processes_in, telling, until

if TYPE_CHECKING:
    from tests.support.observe import Watch


def shared_memory() -> set[str]:
    """Return the ids of the System V segments of this machine."""
    rows = Path("/proc/sysvipc/shm").read_text().splitlines()[1:]
    return {row.split()[1] for row in rows}


def segment(server: PostgresServer) -> str:
    """Return the id of a running server's System V segment."""
    state = (server.directory / "data" / "postmaster.pid").read_text()
    return state.splitlines()[6].split()[1]


@linux_only
def test_close_leaves_nothing_of_a_killed_server(watch: Watch) -> None:
    """No process, directory or shared memory; its log can still be read."""
    server = PostgresServer()
    assert repr(server) == "<PostgresServer: not started>"
    with server:
        assert repr(server) == f"<PostgresServer: port {server.port}>"
        assert server.execute("SHOW fsync") == "off"
        standby = server.standby()
        segments = {segment(server), segment(standby)}
        assert segments <= shared_memory()
        directories = [server.directory, standby.directory]
        watch.on(pid for directory in directories for pid in processes_in(directory))
        server.kill()
    watch.until_all_ended(0)
    assert not any(directory.exists() for directory in directories)
    assert not segments & shared_memory()
    assert "ready to accept connections" in server.log
    assert repr(server) == "<PostgresServer: closed>"
    for use in (server.start, lambda: server.directory):
        with pytest.raises(ServerError, match="<PostgresServer: closed> has no directory"):
            use()


def test_a_durable_server_waits_for_a_real_disk() -> None:
    """It is never in memory."""
    with PostgresServer(durable=True) as server:
        assert server.execute("SHOW fsync") == "on"
        assert not server.directory.is_relative_to("/dev/shm")


def test_several_servers_at_once(own_postgres: PostgresServer) -> None:
    """Started at the same time, as the workers of pytest-xdist would."""
    servers = [PostgresServer(), PostgresServer()]
    threads = [threading.Thread(target=server.start) for server in servers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [server.execute("SELECT 1") for server in servers] == ["1", "1"]
    assert len({server.port for server in (own_postgres, *servers)}) == 3
    for server in servers:
        server.close()
    assert own_postgres.execute("SELECT 1") == "1"


OWNER = """
import json, os, signal, sys
from sessionfactory.testing.servers.postgres import PostgresServer
if len(sys.argv) > 1:
    os.chdir("/"); os.setgroups([]); os.setgid(int(sys.argv[1])); os.setuid(int(sys.argv[1]))
server = PostgresServer()
server.start()
servers = [server, server.standby()]
states = [(s.directory / "data" / "postmaster.pid").read_text().splitlines() for s in servers]
server.kill()
print(json.dumps({
    "directories": [str(server.directory) for server in servers],
    "segments": [lines[6].split()[1] for lines in states],
}), flush=True)
signal.pause()
"""


@linux_only
def test_nothing_is_left_when_the_test_process_is_killed(watch: Watch) -> None:
    """Neither of a server that runs, nor of one that it had killed."""
    with telling(sys.executable, "-c", OWNER) as (owner, hear):
        told = json.loads(hear())
        directories = [Path(name) for name in told["directories"]]
        watch.on(pid for directory in directories for pid in processes_in(directory))
        assert set(told["segments"]) <= shared_memory()
        owner.kill()
        watch.until_all_ended()
        until(lambda: not any(directory.exists() for directory in directories))
        assert not set(told["segments"]) & shared_memory()


def ordinary_python() -> str | None:
    """Return a Python that every user may run; the one of a virtual environment may be root's."""
    for python in (sys.executable, shutil.which("python3", path="/usr/local/bin:/usr/bin")):
        if python and reachable(Path(python)):
            enough = "import sys, sqlalchemy; raise SystemExit(sys.version_info < (3, 11))"
            if not subprocess.run([python, "-c", enough], check=False).returncode:
                return python
    return None


@as_root
@linux_only
def test_an_ordinary_user_runs_servers_too(watch: Watch) -> None:
    """It has no other user to run the server as, and enters no other user's directories."""
    root = Path(postgres.__file__).parents[2]
    programs = find_postgres()
    python = ordinary_python()
    if python is None or not reachable(root) or not reachable(programs):
        pytest.skip("Python, PostgreSQL or this project are where only root may go")
    user = next(entry for entry in pwd.getpwall() if entry.pw_uid not in {0, 65534})
    env = {"PYTHONPATH": str(root), "SESSIONFACTORY_POSTGRES_BIN": str(programs)}
    with telling(python, "-c", OWNER, str(user.pw_uid), env=env) as (owner, hear):
        directories = [Path(name) for name in json.loads(hear())["directories"]]
        assert {directory.stat().st_uid for directory in directories} == {user.pw_uid}
        watch.on(pid for directory in directories for pid in processes_in(directory))
        owner.kill()
        watch.until_all_ended()
        until(lambda: not any(directory.exists() for directory in directories))


def linked(source: str, copy: str) -> None:
    """Copy a file without its bytes, if the file system is the same."""
    try:
        Path(copy).hardlink_to(source)
    except OSError:
        shutil.copy2(source, copy)


@as_root
def test_programs_in_a_closed_home_are_copied(
    closed_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A virtual environment below root's home is out of the server's user's reach."""
    tree = find_postgres().parent
    libraries = tree.parent.with_name(f"{tree.parent.name}.libs")
    for part in (tree, libraries):
        if part.is_dir():
            shutil.copytree(
                part,
                closed_home / part.relative_to(tree.parents[1]),
                symlinks=True,
                copy_function=linked,
                ignore=shutil.ignore_patterns("include"),
            )
    place = closed_home / tree.parent.name / tree.name / "bin"
    shutil.copy2(tree / "bin" / "postgres", place / "mine")
    (place / "mine").rename(place / "postgres")
    (place / "postgres").chmod(0o700)
    monkeypatch.setenv("SESSIONFACTORY_POSTGRES_BIN", str(place))
    with PostgresServer() as server:
        assert server.execute("SELECT 1") == "1"
        assert (server.directory / "programs").is_dir()
