"""The proxy's address, its process, and its end."""

from __future__ import annotations

import gc
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from time import monotonic

import psycopg
import pytest
from sqlalchemy import URL, make_url

import sessionfactory.testing.proxy
from sessionfactory.testing.proxy.fault_proxy import FaultProxy

PARENT = """
import select
import sys
from sessionfactory.testing.proxy.fault_proxy import FaultProxy
proxy = FaultProxy("postgresql://127.0.0.1:1")
if len(sys.argv) > 1:  # leave an answer unread
    proxy._control._socket.sendall(b'{"id": 0, "do": "read"}\\n')
    select.select([proxy._control._socket], [], [])
print(proxy.port, flush=True)
sys.stdin.read()
"""


def listens(port: int) -> bool:
    """Whether anybody listens at this port."""
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionError:
        return False
    return True


def test_url_differs_in_host_and_port_alone() -> None:
    """The proxy's URL keeps all but the place, whether it was given as text or as a URL."""
    text = "postgresql+psycopg://ada:secret@localhost:6543/books?application_name=x&port=6544"
    for given in (text, make_url(text)):
        with FaultProxy(given) as proxy:
            assert proxy.url == URL.create(
                "postgresql+psycopg",
                "ada",
                "secret",
                "127.0.0.1",
                proxy.port,
                "books",
                {"application_name": "x"},
            )
            assert proxy.upstream == make_url(text)
            assert repr(proxy).startswith(f"<FaultProxy on 127.0.0.1:{proxy.port} before ")
            assert "secret" not in repr(proxy)


def test_unix_socket_upstream(server: URL) -> None:
    """A server on a unix socket is reached as on TCP."""
    with psycopg.connect(
        server.set(drivername="postgresql").render_as_string(hide_password=False)
    ) as connection:
        row = connection.execute("SHOW unix_socket_directories").fetchone()
    assert row is not None
    url = server.set(host=None, port=None).update_query_dict(
        {"host": str(row[0]), "port": str(server.port)}
    )
    with FaultProxy(url) as proxy:
        assert proxy.url == server.set(host="127.0.0.1", port=proxy.port)
        assert repr(proxy).endswith(f" before {row[0]}/.s.PGSQL.{server.port}>")
        text = proxy.url.set(drivername="postgresql").render_as_string(hide_password=False)
        with psycopg.connect(text) as connection:
            connection.execute("SELECT 1")
            proxy.reset()
            with pytest.raises(psycopg.OperationalError):
                connection.execute("SELECT 1")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://127.0.0.1",
        "postgresql://[::1]:5432",
        "mysql://127.0.0.1",
        "mariadb://127.0.0.1",
        "mysql+pymysql:///db?unix_socket=/run/mysqld/mysqld.sock",
        "postgresql:///db?host=127.0.0.1:6543",
        "mssql+pyodbc://127.0.0.1:1433",
    ],
)
def test_urls_that_name_a_server(url: str) -> None:
    """A URL may leave out what its database has a custom for, and need not be PostgreSQL's."""
    with FaultProxy(url) as proxy:
        assert proxy.url.host == "127.0.0.1"
        assert not set(proxy.url.query) & {"host", "unix_socket"}


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("what:is!this:secret", "the proxy needs a database URL, such as postgresql+psycopg://"),
        ("postgresql://u:secret@h:port/db", "the proxy needs a database URL, such as"),
        ("postgresql://u:secret@/db", "this postgresql URL names no host"),
        ("sqlite:///file.db", "this sqlite URL names no host"),
        ("postgresql:///db?host=a:1&host=b:2&password=secret", "the URL names several hosts"),
        ("postgresql:///db?host=a,b&password=secret", "the URL names several hosts"),
        ("postgresql://h/db?port=1&port=2", "the URL names several hosts"),
        ("postgresql://h/db?port=secret", "the URL's port is not a number"),
        ("postgresql://h/db?hostaddr=10.0.0.1", "hostaddr= in a URL would lead past the proxy"),
        ("oracle://u:secret@h/db", "the URL names no port, and oracle has none we know"),
    ],
)
def test_urls_that_name_none(url: str, message: str) -> None:
    """A URL that names no server, or several, is refused in words that quote no password."""
    with pytest.raises(ValueError, match=f"^{re.escape(message)}") as caught:
        FaultProxy(url)
    assert "u:secret" not in str(caught.value)


def test_unknown_host() -> None:
    """A host that cannot be resolved is an error of its own."""
    with pytest.raises(OSError, match=r"cannot find the host 'nowhere\.invalid' that the proxy"):
        FaultProxy("postgresql://nowhere.invalid/db")


def test_senseless_latency_starts_nothing() -> None:
    """A proxy that cannot be made leaves nothing behind."""
    with pytest.raises(ValueError, match="latency is a number of seconds"):
        FaultProxy("postgresql://127.0.0.1", latency=-1)


def test_protocol_that_cannot_be_read() -> None:
    """Cuts at a statement need a protocol that the proxy can read."""
    with (
        FaultProxy("oracle://127.0.0.1:1521") as proxy,
        pytest.raises(ValueError, match="cannot read the protocol of oracle, so it cannot cut"),
    ):
        proxy.cut("before", "COMMIT")


def test_close_leaves_nothing_behind(server: URL) -> None:
    """After close there is no process, no port and no descriptor; closing again does nothing."""
    gc.collect()
    before = len(list(Path("/proc/self/fd").iterdir()))
    proxy = FaultProxy(server)
    connection = psycopg.connect(
        proxy.url.set(drivername="postgresql").render_as_string(hide_password=False)
    )
    proxy.cut("late", "COMMIT")
    pid = proxy._control._process.pid
    proxy.close()
    proxy.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert not listens(proxy.port)
    with pytest.raises(psycopg.OperationalError):
        connection.execute("SELECT 1")
    connection.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_closed_proxy_says_so() -> None:
    """Whatever is asked of a closed proxy is refused, and so is what its triggers are asked."""
    proxy = FaultProxy("postgresql://127.0.0.1:1")
    trigger = proxy.cut("before", "COMMIT")
    proxy.close()
    with pytest.raises(RuntimeError, match="this FaultProxy is closed"):
        proxy.black_hole()
    with pytest.raises(RuntimeError, match="this FaultProxy is closed"):
        trigger.wait()


@pytest.mark.parametrize("arguments", [[], ["unread"]])
def test_process_ends_with_its_parent(arguments: list[str]) -> None:
    """When the parent is killed, whatever it was about, the proxy's process ends."""
    root = Path(sessionfactory.testing.proxy.__file__).parents[3]
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, *arguments],
        cwd=root,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        port = int(parent.stdout.readline())
        assert listens(port)
        parent.kill()
    deadline = monotonic() + 10
    while listens(port):
        assert monotonic() < deadline
