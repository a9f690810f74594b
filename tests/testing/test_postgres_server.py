from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import create_async_engine

from sessionfactory.testing.servers._process import ServerError
from sessionfactory.testing.servers.postgres import PostgresServer
from tests.support.observe import processes_in, until

if TYPE_CHECKING:
    from tests.support.observe import Watch


def refuses(server: PostgresServer) -> bool:
    """Return whether the port of a server has no listener."""
    try:
        socket.create_connection(("127.0.0.1", server.port)).close()
    except ConnectionRefusedError:
        return True
    return False


def test_the_urls_reach_the_server(postgres_server: PostgresServer) -> None:
    """Through loopback and through the socket."""
    for url in (postgres_server.url, postgres_server.socket_url):
        engine = create_engine(url)
        with engine.connect() as connection:
            assert connection.scalar(text("SHOW port")) == str(postgres_server.port)
        engine.dispose()


def test_the_async_url_reaches_the_server(postgres_server: PostgresServer) -> None:
    """So it does for async engines."""

    async def port(url: str) -> object:
        engine = create_async_engine(url)
        async with engine.connect() as connection:
            found: object = await connection.scalar(text("SHOW port"))
        await engine.dispose()
        return found

    for url in (postgres_server.async_url, postgres_server.url):
        assert asyncio.run(port(url)) == str(postgres_server.port)


def test_nobody_else_on_the_machine_gets_in(postgres_server: PostgresServer) -> None:
    """Loopback is open to every user, and a superuser of PostgreSQL may run programs."""
    engine = create_engine(re.sub(":[^:@]*@", ":guess@", postgres_server.url))
    with pytest.raises(Exception, match="password authentication failed"):
        engine.connect()
    engine.dispose()
    listening = postgres_server.execute("SHOW listen_addresses")
    assert listening == "127.0.0.1"


def test_execute_gives_rows_and_raises_postgresql_s_words(postgres_server: PostgresServer) -> None:
    """What psql prints is what the test gets."""
    assert postgres_server.execute("VALUES (1, 'é', NULL), (2, '', 'x')") == "1\té\t\n2\t\tx"
    with pytest.raises(ServerError, match='relation "nothing" does not exist'):
        postgres_server.execute("TABLE nothing")


def test_the_client_environment_does_not_leak_in(
    postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A developer's PG variables are for other servers."""
    monkeypatch.setenv("PGHOST", "elsewhere.invalid")
    monkeypatch.setenv("PGOPTIONS", "-c search_path=elsewhere")
    assert postgres_server.execute("SHOW search_path") == '"$user", public'


def test_settings_are_the_server_s(own_postgres: PostgresServer) -> None:
    """Whatever their type."""
    assert own_postgres.execute("SHOW max_connections") == "42"
    own_postgres.configure(
        {"work_mem": "5MB", "app.note": "it's \\ a\nnote", "enable_seqscan": False}
    )
    asked = "SELECT current_setting('work_mem'), current_setting('enable_seqscan')"
    assert own_postgres.execute(asked) == "5MB\toff"
    assert own_postgres.execute("SHOW app.note") == "it's \\ a\nnote"


@pytest.mark.parametrize("name", ["work_mem", "work_memory"])
def test_a_refused_setting_changes_nothing(own_postgres: PostgresServer, name: str) -> None:
    """Nor does the setting beside it."""
    with pytest.raises(ServerError, match=f"refuses these settings: {name}\tlots"):
        own_postgres.configure({name: "lots", "maintenance_work_mem": "9MB"})
    assert own_postgres.execute("SHOW maintenance_work_mem") == "64MB"


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"port": 5432}, r"port is not for settings: give it to PostgresServer\(port=…\)"),
        ({"work mem": 1}, "'work mem' is not the name of a PostgreSQL setting"),
    ],
)
def test_settings_that_cannot_be_are_refused_at_once(settings: dict[str, int], told: str) -> None:
    """Before anything is started."""
    with pytest.raises(ValueError, match=told):
        PostgresServer(settings=settings)


@pytest.mark.parametrize("port", ["5432", 80000, 0, True])
def test_what_is_no_port_is_refused_at_once(port: Any) -> None:
    """Before anything is started; a number as text is none."""
    with pytest.raises(ValueError, match="port: expected a number from 1 to 65535, or None"):
        PostgresServer(port=port)


def test_stop_and_start_keep_data_and_url(own_postgres: PostgresServer) -> None:
    """A stopped server is the same later, and what needs a restart has changed."""
    url, pid = own_postgres.url, own_postgres.pid
    own_postgres.execute("INSERT INTO kept VALUES ('stopped')")
    own_postgres.configure({"max_connections": 43})
    own_postgres.stop()
    own_postgres.configure({"superuser_reserved_connections": 4})
    assert (own_postgres.running, own_postgres.pid, refuses(own_postgres)) == (False, None, True)
    own_postgres.stop()
    own_postgres.start()
    assert own_postgres.url == url
    assert own_postgres.pid != pid
    assert own_postgres.execute("SHOW max_connections") == "43"
    assert own_postgres.execute("SHOW superuser_reserved_connections") == "4"
    pid = own_postgres.pid
    own_postgres.start()
    assert own_postgres.pid == pid  # it ran already
    assert "stopped" in own_postgres.execute("TABLE kept")


def test_kill_ends_all_processes_and_loses_no_commit(
    own_postgres: PostgresServer, watch: Watch
) -> None:
    """As in a power cut: clients are told nothing, commits are kept."""
    engine = create_engine(own_postgres.url)
    with engine.connect() as connection:
        busy = threading.Thread(target=own_query_breaks, args=(own_postgres,))
        busy.start()
        until(
            lambda: (
                own_postgres.execute(f"SELECT count(*) FROM pg_stat_activity WHERE {IS_BUSY}")
                == "1"
            )
        )
        connection.execute(text("INSERT INTO kept VALUES ('killed')"))
        connection.commit()
        watch.on(processes_in(own_postgres.directory) if sys.platform == "linux" else ())
        own_postgres.kill()
        watch.until_all_ended(0)
        assert (own_postgres.running, refuses(own_postgres)) == (False, True)
        with pytest.raises(Exception, match="server closed the connection"):
            connection.execute(text("SELECT 1"))
    engine.dispose()
    busy.join()
    own_postgres.start()
    assert "killed" in own_postgres.execute("TABLE kept")


def own_query_breaks(server: PostgresServer) -> None:
    """Run a query for long, and see its connection break."""
    with pytest.raises(ServerError, match="server closed the connection"):
        server.execute(BUSY)


BUSY = "/* busy */ SELECT count(*) FROM generate_series(1, 1000000000)"
IS_BUSY = "query LIKE '/* busy%' AND state = 'active'"


def test_a_death_that_nobody_asked_for_is_seen(own_postgres: PostgresServer) -> None:
    """The server says that it does not run, and may be started."""
    assert own_postgres.pid is not None
    os.kill(own_postgres.pid, signal.SIGKILL)
    until(lambda: not own_postgres.running)
    own_postgres.start()
    assert own_postgres.execute("SELECT 1") == "1"


@pytest.mark.parametrize(("mode", "recovers"), [("fast", False), ("immediate", True)])
def test_restart(own_postgres: PostgresServer, mode: str, *, recovers: bool) -> None:
    """An immediate one leaves the server to recover, a fast one does not."""
    before, pid = len(own_postgres.log), own_postgres.pid
    own_postgres.restart("fast" if mode == "fast" else "immediate")
    assert own_postgres.pid != pid
    assert ("automatic recovery in progress" in own_postgres.log[before:]) is recovers


def test_a_server_that_was_never_started_has_no_url() -> None:
    """Nothing can be asked of it, and ending it is no fault."""
    server = PostgresServer()
    with pytest.raises(ServerError, match="no port before its first start: with Postg"):
        _ = server.url
    assert (server.log, server.running) == ("", False)
    server.kill()
    server.close()
