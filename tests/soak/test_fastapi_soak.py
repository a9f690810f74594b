"""FastAPI over real sockets, for long: reads that follow a 2xx, streams, clients that leave."""

from __future__ import annotations

import asyncio
import http.client
import time
from typing import TYPE_CHECKING, Final

import pytest

from tests.ext.test_fastapi_commits import HALVES, missed
from tests.ext.test_fastapi_leaving import tables, wait_until_all_are_back
from tests.support.fastapi_apps import make_app
from tests.support.leaving_clients import CLIENTS, storm
from tests.support.leaving_clients import make_app as make_leaving_app
from tests.support.serving import PATIENCE, Client, client_of, serving
from tests.support.slow_items import slow_items

if TYPE_CHECKING:
    from sessionfactory.testing import PostgresServer

READS: Final = 1000
ROUNDS: Final = 10
SECONDS: Final = 2.0

__all__ = ["tables"]


@pytest.mark.parametrize("half", HALVES)
def test_reads_that_follow_a_2xx(half: str, postgres_server: PostgresServer) -> None:
    """None of 1,000 misses the row, and of a plain yield's in the same run most do."""
    with (
        slow_items(postgres_server, 0.005),
        client_of(make_app(half, postgres_server.url)) as client,
    ):
        misses = {way: missed(client, way, READS) for way in ("factory", "transaction", "plain")}
    assert misses["factory"] == misses["transaction"] == 0
    assert misses["plain"] > 0


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("way", ["factory", "transaction"])
def test_a_stream_of_two_seconds(half: str, way: str, postgres_server: PostgresServer) -> None:
    """No connection is out at any moment while the response streams."""
    with slow_items(postgres_server, 0), serving(make_app(half, postgres_server.url)) as port:
        client = Client(port)
        stream = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        stream.request("GET", f"/{way}-stream")
        response = stream.getresponse()
        assert response.read(6) == b"first "
        end = time.monotonic() + SECONDS
        held: list[object] = []
        while time.monotonic() < end:
            held.append(client("GET", "/in-use").json)
        client("POST", "/open")
        response.read()
        stream.close()
    assert set(held) == {0}


@pytest.mark.usefixtures("tables")
@pytest.mark.parametrize("half", HALVES)
def test_clients_that_leave_again_and_again(half: str, postgres_server: PostgresServer) -> None:
    """After ten storms every connection is there, and every row has its other half."""
    app = make_leaving_app(half, postgres_server.url)
    created = 0
    with serving(app) as port:
        for round_ in range(ROUNDS):
            told = asyncio.run(storm(port, round_ * CLIENTS))
            created += len(told.created)
            assert wait_until_all_are_back(app, half).in_use == 0
    query = "SELECT number FROM ext_half GROUP BY number HAVING count(*) {} 2"
    assert postgres_server.execute(query.format("<>")).split() == []
    assert len(postgres_server.execute(query.format("=")).split()) >= created
