"""A PostgreSQL server as clients meet it: on a Unix socket, and behind a slow network."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from time import perf_counter
from typing import TYPE_CHECKING, Final

from sqlalchemy import create_engine, make_url

from benchmarks.setups.databases import disposing
from benchmarks.tool.figures import Spread
from sessionfactory.testing import FaultProxy, PostgresServer

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from sqlalchemy import URL

SOCKET: Final = "Unix socket"
LATENCIES: Final = (0.0005, 0.002)
"""Seconds that a round trip takes: within a data centre, and between two of them."""
_LOOK = 50


@contextmanager
def socket_only() -> Generator[URL]:
    """Start a server, and give its URL on the Unix socket, for psycopg."""
    with PostgresServer() as server:
        yield make_url(server.socket_url)


@contextmanager
def places(latencies: Sequence[float] = LATENCIES) -> Generator[dict[str, URL]]:
    """Start a server, and proxies that add to each round trip; give the URLs, for psycopg.

    Each proxy is a process of its own that speaks to the server through the socket.
    """
    with socket_only() as url, ExitStack() as stack:
        proxies = [stack.enter_context(FaultProxy(url, latency=each)) for each in latencies]
        slow = {f"{proxy.latency * 1e3:g} ms": proxy.url for proxy in proxies}
        yield {SOCKET: url} | slow


def round_trip(url: URL) -> Spread:
    """Return the seconds that a statement takes of which the server has nothing to do."""
    with (
        disposing(create_engine(url, isolation_level="AUTOCOMMIT")) as engine,
        engine.connect() as connection,
    ):
        cursor = connection.connection.cursor()
        taken: list[float] = []
        for _ in range(_LOOK):
            began = perf_counter()
            cursor.execute("")
            taken.append(perf_counter() - began)
        cursor.close()
    return Spread.of(taken)


def distances(urls: dict[str, URL]) -> str:
    """Say how long round trips really take, as a table's note."""
    found = {name: round_trip(url) for name, url in urls.items()}
    return "Round trips as measured, in ms: " + ", ".join(
        f"{name}: {spread.median * 1e3:.2f} ({spread.low * 1e3:.2f} to {spread.high * 1e3:.2f})"
        for name, spread in found.items()
    )
