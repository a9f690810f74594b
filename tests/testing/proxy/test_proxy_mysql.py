"""The proxy before a server that speaks MySQL's protocol: just enough of one for PyMySQL."""

from __future__ import annotations

import contextlib
import socket
from concurrent.futures import ThreadPoolExecutor
from queue import Queue
from typing import TYPE_CHECKING, Any, Literal

import pytest
from sqlalchemy import URL, create_engine

from sessionfactory.testing.proxy.fault_proxy import FaultProxy

if TYPE_CHECKING:
    from collections.abc import Generator

_GREETING = (
    b"\x0a10.11-fake\0"
    b"\1\0\0\0"
    b"12345678\0"
    b"\xff\xf7"
    b"\x21"
    b"\2\0"
    b"\x00\x80"
    b"\x15" + b"\0" * 10 + b"123456789012\0" + b"mysql_native_password\0"
)
_OK = b"\0\0\0\2\0\0\0"


class FakeMySQL:
    """Lets everybody in, says OK to whatever it is told, and keeps what that was."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"mysql+pymysql://ada:x@127.0.0.1:{self.listener.getsockname()[1]}/books"
        self.heard: Queue[str] = Queue()

    def serve(self) -> None:
        """Serve one client after the other until the listener is closed."""
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            with client, client.makefile("rb") as stream, contextlib.suppress(ConnectionError):
                client.sendall(_packet(0, _GREETING))
                while len(header := stream.read(4)) == 4:
                    payload = stream.read(int.from_bytes(header[:3], "little"))
                    if header[3] == 0:
                        self.heard.put(payload[1:].decode())
                    client.sendall(_packet(header[3] + 1, _OK))


def _packet(number: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "little") + bytes([number]) + payload


@pytest.fixture
def server() -> Generator[FakeMySQL]:
    """A server that runs until the test ends."""
    server = FakeMySQL()
    with ThreadPoolExecutor(1) as threads:
        threads.submit(server.serve)
        yield server
        server.listener.shutdown(socket.SHUT_RDWR)
        server.listener.close()


def connect(url: URL) -> Any:
    """Connect without SQLAlchemy's questions, which the fake could not answer."""
    dialect = create_engine(url).dialect
    arguments, keywords = dialect.create_connect_args(url)
    return dialect.connect(*arguments, **keywords)


def insert(url: URL) -> Exception | None:
    """Write something in a transaction; give the driver's complaint, if any."""
    connection = connect(url)
    try:
        connection.cursor().execute("INSERT INTO numbers VALUES (1)")
        connection.commit()
    except Exception as error:  # noqa: BLE001 - the driver's, which has no types
        return error
    finally:
        connection.close()
    return None


def heard(server: FakeMySQL) -> list[str]:
    """What the server was told since it was last asked, but for the drivers' settings."""
    said = [server.heard.get() for _ in range(server.heard.qsize())]
    return [statement for statement in said if statement and not statement.startswith("SET ")]


@pytest.mark.parametrize("when", ["before", "after"])
def test_cut_at_commit(server: FakeMySQL, when: Literal["before", "after"]) -> None:
    """The client fails at a COMMIT that the server has heard, or has not."""
    with FaultProxy(server.url) as proxy:
        trigger = proxy.cut(when, "COMMIT")
        assert insert(proxy.url) is not None
        assert trigger.fired
        said = ["INSERT INTO numbers VALUES (1)"]
        assert heard(server) == (said if when == "before" else [*said, "COMMIT"])
        assert insert(proxy.url) is None


def test_late_commit(server: FakeMySQL) -> None:
    """The server hears a late COMMIT when it is released."""
    with FaultProxy(server.url) as proxy:
        trigger = proxy.cut("late", "COMMIT")
        assert insert(proxy.url) is not None
        assert heard(server) == ["INSERT INTO numbers VALUES (1)"]
        assert trigger.release()
        assert heard(server) == ["COMMIT"]


def test_counts(server: FakeMySQL) -> None:
    """Logins are counted apart, and statements listed."""
    with FaultProxy(server.url) as proxy:
        connection = connect(proxy.url)
        with proxy.counting() as count:
            connection.cursor().execute("SELECT 1")
            connection.commit()
        connection.close()
        assert proxy.login_round_trips == 1
        assert count.flights == [["SELECT 1"], ["COMMIT"]]


def test_unreadable_connection_is_named(server: FakeMySQL) -> None:
    """If a trigger has not fired because a connection is encrypted, the error says so."""
    with FaultProxy(server.url) as proxy:
        trigger = proxy.cut("before", "COMMIT")
        with socket.create_connection(("127.0.0.1", proxy.port)) as client:
            client.recv(1000)
            client.sendall(_packet(1, b"\0\x08\0\0" + b"\0" * 28))
            client.recv(1000)
            with pytest.raises(
                TimeoutError, match=r"passed: none; 1 connections could not be read"
            ):
                trigger.wait(0.01)
