"""How connections through the proxy begin and end, and what becomes of what is on its way."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NoReturn

import psycopg
import pytest

from sessionfactory.testing.proxy.fault_proxy import FaultProxy

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

LINGER_NOT = b"\1\0\0\0\0\0\0\0"


@pytest.fixture
def listener() -> Generator[socket.socket]:
    """A server that speaks no protocol: the test is its other end."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(5)
        yield listener


@pytest.fixture
def proxy_before(listener: socket.socket) -> Generator[FaultProxy]:
    """A proxy before that server, in a language that it does not read."""
    with FaultProxy(f"oracle://127.0.0.1:{listener.getsockname()[1]}") as proxy:
        yield proxy


@pytest.fixture
def pair(
    listener: socket.socket, proxy_before: FaultProxy
) -> Generator[tuple[socket.socket, socket.socket]]:
    """A client and its server, on either side of the proxy."""
    with say(proxy_before) as client, listener.accept()[0] as server:
        server.settimeout(5)
        yield client, server


def say(proxy: FaultProxy) -> socket.socket:
    """Connect to the proxy without a driver."""
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=5)


def reset(sock: socket.socket) -> None:
    """Close a socket with a reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NOT)
    sock.close()


def until_accepted(proxy: FaultProxy) -> None:
    """Return when the proxy has noticed the client whom the system has let in."""
    while not proxy.open_connections:
        pass


def read_all(sock: socket.socket) -> bytes:
    """Read up to the end."""
    received = b""
    while data := sock.recv(1 << 20):
        received += data
    return received


def talk_on(sock: socket.socket) -> NoReturn:
    """Send until stopped."""
    while True:
        sock.sendall(b"x" * 65536)


Pair = tuple[socket.socket, socket.socket]


def test_client_that_closes(pair: Pair) -> None:
    """The server sees the end after all that was said, and the client what the server says then."""
    client, server = pair
    client.sendall(b"bye")
    client.shutdown(socket.SHUT_WR)
    assert read_all(server) == b"bye"
    server.sendall(b"good bye")
    server.close()
    assert read_all(client) == b"good bye"


def test_client_that_closes_after_a_lot(pair: Pair, proxy_before: FaultProxy) -> None:
    """However slowly the server reads, it gets all before the end."""
    client, server = pair
    proxy_before.latency = 0.01
    sent = bytes(3_000_000)
    client.sendall(sent)
    client.close()
    assert proxy_before.connections == 1
    assert read_all(server) == sent


def test_server_that_closes_after_a_lot(pair: Pair) -> None:
    """However slowly the client reads, it gets all before the end."""
    client, server = pair
    sent = bytes(40_000_000)
    left = memoryview(sent)
    while select.select([], [server], [], 0.05)[1]:  # until all on the way is full
        left = left[server.send(left[:65536]) :]
    with ThreadPoolExecutor(1) as threads:
        done = threads.submit(server.sendall, left)
        done.add_done_callback(lambda _: server.close())
        assert read_all(client) == sent


def test_client_that_resets(pair: Pair) -> None:
    """The server sees a reset."""
    client, server = pair
    reset(client)
    with pytest.raises(ConnectionResetError):
        server.recv(1)


def test_server_that_resets(pair: Pair) -> None:
    """The client sees a reset."""
    client, server = pair
    reset(server)
    with pytest.raises(ConnectionResetError):
        client.recv(1)


def test_server_that_resets_while_the_client_speaks(pair: Pair) -> None:
    """What cannot be delivered any more is dropped, and the client is told in the end."""
    client, server = pair
    while select.select([], [client], [], 0.05)[1]:  # until all on the way is full
        client.send(bytes(65536))
    reset(server)
    with pytest.raises(OSError, match=r"reset|pipe"):
        talk_on(client)


def test_server_that_talks_to_a_client_who_has_gone(pair: Pair) -> None:
    """A server that goes on talking is told in the end."""
    client, server = pair
    client.close()
    assert server.recv(1) == b""
    with pytest.raises(OSError, match=r"reset|pipe"):
        talk_on(server)


def test_reset_by_request(pair: Pair, proxy_before: FaultProxy) -> None:
    """A reset reaches the client and the server as a reset."""
    proxy_before.reset()
    assert proxy_before.open_connections == 0
    for end in pair:
        with pytest.raises(ConnectionResetError):
            end.recv(1)


def test_reset_drops_what_is_on_its_way(
    pair: Pair, listener: socket.socket, proxy_before: FaultProxy
) -> None:
    """What was delayed when its connection was reset arrives nowhere, and harms no other."""
    client, server = pair
    proxy_before.latency = 0.05
    client.setblocking(False)
    while select.select([], [client], [], 0.01)[1]:
        client.send(bytes(65536))
    proxy_before.reset()
    with pytest.raises(ConnectionResetError):
        read_all(server)
    with say(proxy_before) as other:
        other.sendall(b"next")
        with listener.accept()[0] as next_server:
            assert next_server.recv(10) == b"next"


def test_reset_before_the_server_is_called(
    listener: socket.socket, proxy_before: FaultProxy
) -> None:
    """A client that is reset while its connection is still delayed never reaches the server."""
    proxy_before.latency = 0.02
    with say(proxy_before) as client:
        until_accepted(proxy_before)
        proxy_before.reset()
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    with say(proxy_before) as client, listener.accept()[0] as server:
        client.sendall(b"second")
        assert server.recv(10) == b"second"


def test_server_that_does_not_pick_up() -> None:
    """While the server does not answer a call, its client can be reset."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        place = listener.getsockname()
        fillers = [socket.socket() for _ in range(3)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(place)
        with FaultProxy(f"oracle://127.0.0.1:{place[1]}") as proxy, say(proxy) as client:
            until_accepted(proxy)
            for fault in (proxy.black_hole, proxy.restore, proxy.reset):
                assert proxy.open_connections == 1
                fault()
            with pytest.raises(ConnectionResetError):
                client.recv(1)
        for filler in fillers:
            filler.close()


def test_black_hole_while_a_statement_is_late(
    proxy: FaultProxy,
    insert: Callable[[str, int], Exception | None],
    values: Callable[[], list[int]],
) -> None:
    """A late statement outlives a black hole."""
    trigger = proxy.cut("late", "COMMIT")
    assert insert("psycopg", 1) is not None
    proxy.black_hole()
    proxy.restore()
    assert trigger.release()
    assert values() == [1]


def test_late_statement_is_delivered_once(
    proxy: FaultProxy,
    insert: Callable[[str, int], Exception | None],
    values: Callable[[], list[int]],
) -> None:
    """A delay that ends after the release delivers nothing again."""
    trigger = proxy.cut("late", "COMMIT", delay=0.1)
    assert insert("psycopg", 1) is not None
    assert trigger.release()
    again = proxy.cut("late", "COMMIT", delay=0.2)
    assert insert("psycopg", 2) is not None
    assert again.wait_delivered()
    assert values() == [1, 2]


def test_late_statement_without_its_sync(
    proxy: FaultProxy, table: str, values: Callable[[], list[int]]
) -> None:
    """A late statement of the extended protocol is answered, even if its Sync was still to come."""
    url = proxy.url.set(drivername="postgresql").render_as_string(hide_password=False)
    with contextlib.closing(psycopg.connect(url)) as connection:
        connection.execute(f"INSERT INTO {table} VALUES (1)".encode())
        trigger = proxy.cut("late", "COMMIT")
        parse, bind, execute = b"\0COMMIT\0\0\0", b"\0\0\0\0\0\0\0\0", b"\0\0\0\0\0"
        for kind, body in (b"P", parse), (b"B", bind), (b"E", execute):
            os.write(connection.fileno(), kind + struct.pack(">i", len(body) + 4) + body)
        assert trigger.release()
    assert values() == [1]


def test_what_follows_a_late_statement_is_late_too(
    proxy: FaultProxy, table: str, values: Callable[[], list[int]]
) -> None:
    """What the client sent after the statement, before it was cut, is delivered after it."""
    url = proxy.url.set(drivername="postgresql").render_as_string(hide_password=False)
    with contextlib.closing(psycopg.connect(url)) as connection:
        connection.execute(f"INSERT INTO {table} VALUES (1)".encode())
        proxy.latency = 0.1
        trigger = proxy.cut("late", "COMMIT")
        for query in (b"COMMIT", f"INSERT INTO {table} VALUES (2)".encode()):
            message = b"Q" + struct.pack(">i", len(query) + 5) + query + b"\0"
            os.write(connection.fileno(), message)
            assert trigger.times == 0
        trigger.wait()
        assert values() == []
        assert trigger.release()
        assert values() == [1, 2]
