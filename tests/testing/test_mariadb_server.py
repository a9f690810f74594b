from __future__ import annotations

import asyncio
import re
import shutil
import socket
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import create_async_engine

from sessionfactory.testing.servers._binaries import find_mariadb
from sessionfactory.testing.servers._process import (
    ServerError,
    ServerStartError,
    ServerUnavailableError,
)
from sessionfactory.testing.servers.mariadb import MariaDBServer
from tests.support.available import MARIADB_LIMITS, running_or_skipped
from tests.support.observe import as_root, linux_only, processes_in, telling, until

if TYPE_CHECKING:
    from collections.abc import Generator

    from tests.support.observe import Watch


@pytest.fixture(scope="module")
def own() -> Generator[MariaDBServer]:
    """A server for tests that stop and kill it; each brings it up again."""
    settings = {"max-connections": 42, "innodb_file_per_table": False, **MARIADB_LIMITS}
    with running_or_skipped(MariaDBServer(settings=settings)) as server:
        server.execute("CREATE TABLE kept (value varchar(20))")
        yield server


def refuses(server: MariaDBServer) -> bool:
    """Return whether the port of a server has no listener."""
    try:
        socket.create_connection(("127.0.0.1", server.port)).close()
    except ConnectionRefusedError:
        return True
    return False


def test_the_url_reaches_the_server(mariadb_server: MariaDBServer) -> None:
    """It names the port and a database that is there."""
    engine = create_engine(mariadb_server.url)
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT @@port")) == mariadb_server.port
        assert connection.scalar(text("SELECT database()")) == "test"
    engine.dispose()


def test_the_async_url_reaches_the_server(mariadb_server: MariaDBServer) -> None:
    """So it does for async engines."""

    async def port() -> object:
        engine = create_async_engine(mariadb_server.async_url)
        async with engine.connect() as connection:
            found: object = await connection.scalar(text("SELECT @@port"))
        await engine.dispose()
        return found

    assert asyncio.run(port()) == mariadb_server.port


def test_nobody_else_on_the_machine_gets_in(mariadb_server: MariaDBServer) -> None:
    """Loopback is open to every user of the machine."""
    for pattern, instead in ((":[^:@]*@", ":guess@"), ("root:[^:@]*@", "nobody@")):
        engine = create_engine(re.sub(pattern, instead, mariadb_server.url))
        with pytest.raises(Exception, match="Access denied"):
            engine.connect()
        engine.dispose()
    assert mariadb_server.execute("SELECT @@bind_address") == "127.0.0.1"


def test_execute_gives_rows_and_raises_mariadb_s_words(mariadb_server: MariaDBServer) -> None:
    """What the client prints is what the test gets."""
    assert mariadb_server.execute("SELECT 1, 'é' UNION ALL SELECT 2, ''") == "1\té\n2\t"
    with pytest.raises(ServerError, match=r"Table 'test\.nothing' doesn't exist"):
        mariadb_server.execute("SELECT * FROM nothing")


def test_settings_are_the_server_s(own: MariaDBServer) -> None:
    """Whatever their type."""
    assert own.execute("SELECT @@max_connections, @@innodb_file_per_table") == "42\t0"


def test_settings_of_the_server_s_own_are_refused_at_once() -> None:
    """They would break the promise to listen on loopback only."""
    with pytest.raises(ValueError, match="bind_address is not for settings"):
        MariaDBServer(settings={"bind-address": "0.0.0.0"})


def test_stop_start_and_restart_keep_data_and_url(own: MariaDBServer) -> None:
    """A stopped server is the same server later."""
    url, pid = own.url, own.pid
    own.execute("INSERT INTO kept VALUES ('stopped')")
    own.stop()
    assert (own.running, own.pid, refuses(own)) == (False, None, True)
    own.start()
    own.restart()
    assert own.url == url
    assert own.pid != pid
    assert "stopped" in own.execute("SELECT * FROM kept")


def test_kill_ends_it_and_loses_no_commit(own: MariaDBServer, watch: Watch) -> None:
    """What was committed outlives the process."""
    engine = create_engine(own.url)
    with engine.connect() as connection:
        connection.execute(text("INSERT INTO kept VALUES ('killed')"))
        connection.commit()
        watch.on(processes_in(own.directory) if sys.platform == "linux" else ())
        own.kill()
        watch.until_all_ended(0)
        assert refuses(own)
        with pytest.raises(Exception, match=r"Lost connection|gone away"):
            connection.execute(text("SELECT 1"))
    engine.dispose()
    own.start()
    assert "killed" in own.execute("SELECT * FROM kept")


def test_two_servers_at_once_leave_nothing(own: MariaDBServer) -> None:
    """Each has its own directory and port."""
    servers = [MariaDBServer(), MariaDBServer()]
    threads = [threading.Thread(target=server.start) for server in servers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [server.execute("SELECT 1") for server in servers] == ["1", "1"]
    directories = [server.directory for server in servers]
    for server in servers:
        server.close()
    assert not any(directory.exists() for directory in directories)
    assert own.execute("SELECT 1") == "1"


OWNER = """
import signal
from sessionfactory.testing.servers.mariadb import MariaDBServer
server = MariaDBServer()
server.start()
print(server.directory, flush=True)
signal.pause()
"""


@linux_only
def test_nothing_is_left_when_the_test_process_is_killed(own: MariaDBServer, watch: Watch) -> None:
    """Neither a process nor a directory."""
    with telling(sys.executable, "-c", OWNER) as (owner, hear):
        directory = Path(hear().strip())
        watch.on(processes_in(directory))
        owner.kill()
        watch.until_all_ended()
        until(lambda: not directory.exists())


@as_root
def test_programs_in_a_closed_folder_are_copied(
    own: MariaDBServer, closed_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A project below root's home is out of the server's user's reach."""
    tree = find_mariadb()
    if tree == Path("/usr"):
        pytest.skip("a system installation is open to all")
    (closed_home / "sbin").mkdir()
    shutil.copytree(tree / "share", closed_home / "share")
    shutil.copytree(tree / "lib", closed_home / "lib", symlinks=True)
    shutil.copy2(tree / "sbin" / "mariadbd", closed_home / "sbin")
    monkeypatch.setenv("SESSIONFACTORY_MARIADB_DIR", str(closed_home))
    with MariaDBServer(durable=True) as server:
        assert not server.directory.is_relative_to("/dev/shm")
        assert (server.directory / "programs").is_dir()
        assert not refuses(server)
        with pytest.raises(ServerError, match="has no MariaDB client: bin/mariadb or bin/mysql"):
            server.execute("SELECT 1")


def test_a_server_that_fails_to_start_is_told_with_its_log(own: MariaDBServer) -> None:
    """A wrong setting is seen without looking for a file."""
    with pytest.raises(ServerStartError, match=r"(?s)mariadbd ended with code .*unknown variable"):
        MariaDBServer(settings={"nonsense": 1}).start()


def test_no_mariadb_is_told_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All places that were searched are named."""
    monkeypatch.delenv("SESSIONFACTORY_MARIADB_DIR", raising=False)
    monkeypatch.setattr("sessionfactory.testing.servers._binaries.MARIADB_SYSTEM", ())
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ServerUnavailableError, match=r"no MariaDB here: .* `make mariadb`"):
        MariaDBServer().start()


def test_where_mariadb_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment, then the folder of a project, then the system."""

    def unpack(tree: Path, program: str, share: str) -> Path:
        for file in (tree / program, tree / share / "mysql_system_tables.sql"):
            file.parent.mkdir(parents=True)
            file.touch(0o755)
        return tree

    below = tmp_path / "project" / "tests"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    installed = unpack(tmp_path / "opt", "bin/mariadbd", "share")
    monkeypatch.delenv("SESSIONFACTORY_MARIADB_DIR", raising=False)
    monkeypatch.setattr("sessionfactory.testing.servers._binaries.MARIADB_SYSTEM", ())
    monkeypatch.setenv("PATH", str(installed / "bin"))
    assert find_mariadb() == installed
    fetched = unpack(tmp_path / "project/.mariadb/usr", "sbin/mariadbd", "share/mysql")
    assert find_mariadb() == fetched
    given = unpack(tmp_path / "given", "libexec/mariadbd", "share/mariadb")
    monkeypatch.setenv("SESSIONFACTORY_MARIADB_DIR", str(given))
    assert find_mariadb() == given
    (given / "libexec/mariadbd").chmod(0o644)
    with pytest.raises(ServerUnavailableError, match=r"_DIR is '.*', which does not hold mariadbd"):
        find_mariadb()
