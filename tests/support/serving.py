"""A real server for an application, in a thread, and clients over real sockets."""

from __future__ import annotations

import http.client
import json
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NamedTuple

import uvicorn

if TYPE_CHECKING:
    from collections.abc import Generator

    from starlette.applications import Starlette

PATIENCE: Final = 30.0


class Answer(NamedTuple):
    """What a client reads."""

    status: int
    headers: dict[str, str]
    body: str

    @property
    def json(self) -> object:
        """The body as JSON."""
        return json.loads(self.body)


class Client:
    """Sends requests to a server, each over a connection of its own."""

    def __init__(self, port: int) -> None:
        self.port = port

    def __call__(self, method: str, path: str) -> Answer:
        """Send a request and read its response to the end."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request(method, path)
            response = connection.getresponse()
            body = response.read().decode()
        finally:
            connection.close()
        return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, body)


@contextmanager
def serving(app: Starlette) -> Generator[int]:
    """Serve an application with uvicorn; yield its port. Its shutdown is the one of production."""
    config = uvicorn.Config(app, port=0, log_config=None, lifespan="on", loop="asyncio", ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, name="uvicorn")
    thread.start()
    try:
        deadline = time.monotonic() + PATIENCE
        while not server.started:
            assert thread.is_alive(), "the server did not start"
            assert time.monotonic() < deadline, "the server did not start in time"
            time.sleep(0.005)
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(PATIENCE)
        assert not thread.is_alive(), "the server did not stop"


@contextmanager
def client_of(app: Starlette) -> Generator[Client]:
    """Serve an application, and yield a client of it."""
    with serving(app) as port:
        yield Client(port)
