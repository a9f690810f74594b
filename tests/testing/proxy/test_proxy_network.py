"""Latency and the faults of a network: black hole, deafness, refusal, reset, another server."""

from __future__ import annotations

import select
import socket
from time import perf_counter
from typing import TYPE_CHECKING

import psycopg
import pytest
from sqlalchemy import URL, create_engine, text

from sessionfactory.testing.proxy.fault_proxy import FaultProxy
from tests.support.observe import until

if TYPE_CHECKING:
    from collections.abc import Callable, Generator


def dsn(url: URL) -> str:
    """The URL as psycopg takes it."""
    return url.set(drivername="postgresql").render_as_string(hide_password=False)


def connect(proxy: FaultProxy) -> psycopg.Connection[tuple[object, ...]]:
    """Connect by way of the proxy."""
    return psycopg.connect(dsn(proxy.url), autocommit=True)


def ask(connection: psycopg.Connection[tuple[object, ...]], query: bytes = b"SELECT 1") -> None:
    """Send a query without waiting for the answer."""
    connection.pgconn.send_query(query)
    assert connection.pgconn.flush() == 0


def has_answer(connection: psycopg.Connection[tuple[object, ...]], seconds: float) -> bool:
    """Whether the server's answer arrives within so many seconds; read it if so."""
    if not select.select([connection.fileno()], [], [], seconds)[0]:
        return False
    while connection.pgconn.get_result() is not None:
        pass
    return True


def say(proxy: FaultProxy) -> socket.socket:
    """Connect to the proxy without a driver."""
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=5)


def is_open(proxy: FaultProxy) -> bool:
    """Whether anybody listens at the proxy's port."""
    try:
        say(proxy).close()
    except ConnectionRefusedError:
        return False
    return True


@pytest.fixture
def listener() -> Generator[socket.socket]:
    """A server that speaks no protocol: the test is its other end."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(5)
        yield listener


def before(listener: socket.socket, backend: str = "oracle") -> FaultProxy:
    """Make a proxy before the test's own server, by default in a language that is not read."""
    return FaultProxy(f"{backend}://127.0.0.1:{listener.getsockname()[1]}")


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2", "asyncpg"])
def test_proxy_is_transparent(
    insert: Callable[[str, int], Exception | None], values: Callable[[], list[int]], driver: str
) -> None:
    """Without faults, each driver works through the proxy as it does without."""
    assert insert(driver, 1) is None
    assert values() == [1]


@pytest.mark.parametrize("latency", [0.0, 0.001])
def test_much_data_passes_unharmed(proxy: FaultProxy, latency: float) -> None:
    """Twenty megabytes go to the server in one message, and come back."""
    proxy.latency = latency
    engine = create_engine(proxy.url)
    with engine.connect() as connection:
        sent = "0123456789" * 2_000_000
        assert connection.scalar(text("SELECT CAST(:sent AS text)"), {"sent": sent}) == sent
        rows = connection.execute(text("SELECT n FROM generate_series(1, 300000) AS n"))
        assert sum(rows.scalars()) == 300_000 * 300_001 // 2
    engine.dispose()


def test_latency_is_added_to_each_round_trip(proxy: FaultProxy) -> None:
    """A statement takes as much longer as the latency says, give or take what machines do."""
    with connect(proxy) as connection:
        connection.execute("SELECT 1")
        for latency in (0.02, 0.005, 0.0):
            proxy.latency = latency
            assert proxy.latency == latency
            start = perf_counter()
            for _ in range(5):
                connection.execute("SELECT 1")
            elapsed = (perf_counter() - start) / 5
            assert latency * 0.9 <= elapsed
            assert elapsed < latency + 0.05


def test_latency_of_connecting(listener: socket.socket) -> None:
    """Connecting costs a round trip, and the first message another one."""
    with before(listener) as proxy:
        proxy.latency = 0.05
        start = perf_counter()
        with say(proxy) as client:
            client.sendall(b"hello")
            server, _ = listener.accept()
            with server:
                connected = perf_counter() - start
                assert server.recv(10) == b"hello"
                assert 0.045 <= connected < perf_counter() - start
                assert perf_counter() - start >= 0.095


def test_latency_is_no_queue(listener: socket.socket) -> None:
    """Messages that follow each other at once are all delayed by one latency together."""
    with before(listener) as proxy, say(proxy) as client:
        server, _ = listener.accept()
        with server:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            proxy.latency = 0.1
            start = perf_counter()
            for _ in range(10):
                client.sendall(b"x")
                assert proxy.connections == 1  # time enough to read this one by itself
            received = b""
            while len(received) < 10:
                received += server.recv(10)
            assert 0.09 < perf_counter() - start < 0.5


def test_lower_latency_lets_nothing_overtake(listener: socket.socket) -> None:
    """What is sent after the latency was lowered arrives after what was sent before."""
    with before(listener) as proxy, say(proxy) as client:
        server, _ = listener.accept()
        with server:
            server.settimeout(5)
            proxy.latency = 0.05
            client.sendall(b"1")
            proxy.latency = 0.0
            client.sendall(b"2")
            client.shutdown(socket.SHUT_WR)
            received = b""
            while data := server.recv(10):
                received += data
            assert received == b"12"


def test_black_hole_swallows_nothing_for_good(proxy: FaultProxy) -> None:
    """In a black hole nothing arrives and no connection is cut; afterwards all is delivered."""
    with connect(proxy) as connection:
        proxy.black_hole()
        ask(connection)
        assert not has_answer(connection, 0.1)
        with say(proxy) as newcomer:
            newcomer.sendall(b"\0\0\0\x08\x04\xd2\x16\x2f")  # may we speak TLS?
            assert select.select([newcomer], [], [], 0.1)[0] == []
            assert proxy.open_connections == 2
            proxy.restore()
            assert newcomer.recv(1) == b"N"
        assert has_answer(connection, 5)


def test_black_hole_holds_what_is_on_its_way(proxy: FaultProxy) -> None:
    """What was delayed when the black hole opened is delivered afterwards."""
    with connect(proxy) as connection:
        proxy.latency = 0.05
        ask(connection)
        proxy.black_hole()
        assert not has_answer(connection, 0.1)
        proxy.restore()
        assert has_answer(connection, 5)


def test_deaf_never_accepts(proxy: FaultProxy) -> None:
    """A deaf proxy lets the system connect, and accepts none; other connections work on."""
    with connect(proxy) as connection:
        proxy.deaf()
        with say(proxy) as newcomer:
            newcomer.sendall(b"\0\0\0\x08\x04\xd2\x16\x2f")
            assert select.select([newcomer], [], [], 0.1)[0] == []
            connection.execute("SELECT 1")
            assert proxy.connections == 1
            proxy.restore()
            assert newcomer.recv(1) == b"N"
        assert proxy.connections == 2


def test_refuse_keeps_the_others(proxy: FaultProxy) -> None:
    """Refusal meets new connections only, and ends on the same port."""
    with connect(proxy) as connection:
        proxy.refuse()
        assert not is_open(proxy)
        proxy.refuse()
        connection.execute("SELECT 1")
        proxy.restore()
        connect(proxy).close()


def test_refuse_may_cut_the_others(proxy: FaultProxy) -> None:
    """Refusal resets open connections too, if asked."""
    with connect(proxy) as connection:
        proxy.refuse(existing="cut")
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    assert not is_open(proxy)


def test_each_fault_takes_the_place_of_the_one_before(proxy: FaultProxy) -> None:
    """A black hole is over once the proxy refuses, and refusal once it is deaf."""
    with connect(proxy) as connection:
        proxy.black_hole()
        proxy.refuse()
        connection.execute("SELECT 1")
        proxy.deaf()
        assert is_open(proxy)
        proxy.black_hole()
        ask(connection)
        assert not has_answer(connection, 0.05)
        proxy.deaf()
        assert has_answer(connection, 5)


def test_cancel_passes(proxy: FaultProxy, direct: Callable[[str], list[int]]) -> None:
    """A cancel request, on a connection of its own, reaches the server."""
    with connect(proxy) as connection:
        ask(connection, b"SELECT pg_sleep(30)")
        # A request that overtakes its statement cancels nothing.
        asleep = f"{connection.info.backend_pid} AND wait_event = 'PgSleep'"
        until(lambda: bool(direct(f"SELECT pid FROM pg_stat_activity WHERE pid = {asleep}")))
        connection.cancel_safe(timeout=5)
        assert has_answer(connection, 5)
    assert proxy.connections == 2


def test_upstream_can_be_another_server(proxy: FaultProxy, server: URL) -> None:
    """New connections go to the new server, and those that are open stay with the old one."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        url = server.set(port=other.getsockname()[1])
        with connect(proxy) as connection:
            proxy.upstream = url
            assert proxy.upstream == url
            with say(proxy):
                other.accept()[0].close()
            connection.execute("SELECT 1")
            proxy.upstream = server.render_as_string(hide_password=False)
            connect(proxy).close()


def test_upstream_must_speak_the_same_protocol(proxy: FaultProxy) -> None:
    """A server of another kind is refused."""
    with pytest.raises(ValueError, match="made for postgresql, and cannot stand before mysql"):
        proxy.upstream = "mysql://127.0.0.1"


def test_upstream_that_refuses(proxy: FaultProxy, server: URL) -> None:
    """If the server cannot be reached, the client is cut at once."""
    with socket.create_server(("127.0.0.1", 0)) as gone:
        url = server.set(port=gone.getsockname()[1])
    proxy.upstream = url
    with pytest.raises(psycopg.OperationalError):
        connect(proxy)
    proxy.upstream = url.update_query_dict({"host": "/nowhere"})
    with pytest.raises(psycopg.OperationalError):
        connect(proxy)


@pytest.mark.parametrize("latency", [-1.0, float("nan"), float("inf")])
def test_senseless_latency(proxy: FaultProxy, latency: float) -> None:
    """A latency is a number of seconds from zero on."""
    with pytest.raises(ValueError, match="latency is a number of seconds, not"):
        proxy.latency = latency
