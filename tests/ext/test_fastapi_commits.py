"""FastAPI over real sockets: what a client was told is true, and streams hold no connection."""

from __future__ import annotations

import http.client
from typing import TYPE_CHECKING, Final

import pytest

from sessionfactory.testing import FaultProxy
from tests.support.fastapi_apps import WAYS, make_app
from tests.support.serving import PATIENCE, Client, client_of, serving
from tests.support.slow_items import slow_items

if TYPE_CHECKING:
    from collections.abc import Generator

    from fastapi import FastAPI

    from sessionfactory.testing import PostgresServer

HALVES: Final = ("sync", "async")
PAIRS: Final = 20


@pytest.fixture(params=HALVES)
def app(request: pytest.FixtureRequest, postgres_server: PostgresServer) -> Generator[FastAPI]:
    """The service, on a PostgreSQL whose COMMIT takes 20 ms."""
    with slow_items(postgres_server, 0.02):
        yield make_app(request.param, postgres_server.url)


def missed(client: Client, way: str, pairs: int) -> int:
    """Write rows and read each one back at once; return how many a 2xx promised in vain."""
    misses = 0
    start = WAYS.index(way) * pairs
    for number in range(start + 1, start + pairs + 1):
        assert client("POST", f"/{way}/{number}").status == 201
        misses += client("GET", f"/items/{number}").status == 404
    return misses


@pytest.mark.parametrize("way", ["factory", "transaction"])
def test_a_2xx_is_committed(app: FastAPI, way: str) -> None:
    """The next read finds the row, however long COMMIT takes."""
    with client_of(app) as client:
        assert missed(client, way, PAIRS) == 0


def test_a_plain_yield_answers_before_commit(app: FastAPI) -> None:
    """What the module guards against: code after a plain ``yield`` runs behind the response."""
    with client_of(app) as client:
        assert missed(client, "plain", PAIRS) > 0


@pytest.mark.parametrize("way", ["factory", "transaction"])
def test_a_commit_that_fails_is_no_2xx(app: FastAPI, way: str) -> None:
    """A constraint that fails at COMMIT is a server error to the client, and nothing is saved."""
    with client_of(app) as client:
        assert client("POST", f"/{way}/-1").status == 500
        assert client("GET", "/items/-1").status == 404
        assert client("GET", "/in-use").json == 0


def test_a_plain_yield_tells_of_success_when_commit_fails(app: FastAPI) -> None:
    """What the module guards against: the response is out before COMMIT fails."""
    with client_of(app) as client:
        assert client("POST", "/plain/-1").status == 201
        assert client("GET", "/items/-1").status == 404


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("way", ["factory", "transaction", "retrying"])
def test_a_commit_whose_answer_is_lost_is_no_2xx(
    half: str, way: str, postgres_server: PostgresServer
) -> None:
    """The connection is cut behind COMMIT: the client learns that it must look, and finds a row."""
    with (
        slow_items(postgres_server, 0),
        FaultProxy(postgres_server.url) as proxy,
        client_of(make_app(half, proxy.url.render_as_string(hide_password=False))) as client,
    ):
        assert client("GET", "/items/1").status == 404
        with proxy.cut("after", "COMMIT") as cut:
            answer = client("POST", f"/{way}/1")
        assert cut.fired
        assert client("GET", "/items/1").json == 1
    assert answer.status == 500
    assert answer.json == {
        "code": "commit_uncertain",
        "detail": "The request may have been carried out or not; look before you repeat it.",
    }


def test_a_transaction_is_rolled_back_by_an_http_exception(app: FastAPI) -> None:
    """An endpoint that refuses a request leaves nothing behind."""
    with client_of(app) as client:
        assert client("POST", "/refused/1").status == 418
        assert client("GET", "/items/1").status == 404


def test_a_write_by_the_reader_is_a_conflict(app: FastAPI) -> None:
    """A write in a read-only transaction is a 409 with a stable body."""
    with client_of(app) as client:
        answer = client("POST", "/readonly/1")
    assert (answer.status, answer.json) == (
        409,
        {"code": "read_only", "detail": "This request may only read, and tried to write."},
    )


@pytest.mark.parametrize(("way", "held"), [("factory", 0), ("transaction", 0), ("plain", 1)])
def test_connections_that_a_stream_holds(app: FastAPI, way: str, held: int) -> None:
    """While a response streams, factory and ``Transaction`` hold none; a plain yield holds one."""
    with serving(app) as port:
        client = Client(port)
        stream = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        stream.request("GET", f"/{way}-stream")
        response = stream.getresponse()
        assert response.read(6) == b"first "

        assert client("GET", "/in-use").json == held

        client("POST", "/open")
        assert response.read() == b"last"
        stream.close()
