"""Starlette: who owns the registry, who finds it, and what clients read when a database fails."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from sessionfactory import (
    AsyncSessionFactoryRegistry,
    CommitUncertainError,
    NotConfiguredError,
    ReadOnlyError,
    SessionFactoryRegistry,
    SettingsError,
)
from sessionfactory.ext.starlette import (
    add_error_handlers,
    async_registry_of,
    lifespan,
    registry_of,
)
from tests.support.slow_items import maker

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from starlette.requests import Request
    from starlette.websockets import WebSocket

HALVES: Final = ("sync", "async")


async def names(request: Request) -> Response:
    """Return the names of the application's databases, and what its state holds."""
    state = getattr(request.state, "greeting", None)
    return JSONResponse([*registry_of(request).names, state])


@pytest.mark.parametrize("half", HALVES)
def test_the_registry_is_there_for_all_of_the_own_lifespan(half: str, url: str) -> None:
    """The application's own lifespan runs inside, and the registry is drained after it."""
    find = registry_of if half == "sync" else async_registry_of
    seen: list[object] = []

    @asynccontextmanager
    async def own(app: Starlette) -> AsyncGenerator[None]:
        seen.append(find(app).names)
        yield
        seen.append(find(app).names)

    app = Starlette(lifespan=lifespan(maker(half, url), own=own))
    with TestClient(app):
        registry = find(app)

    assert seen == [("default",), ("default",)]
    with pytest.raises(RuntimeError, match="The registry is closed"):
        registry.get()
    with pytest.raises(NotConfiguredError, match="has no registry"):
        find(app)


def test_the_own_lifespan_s_state_is_passed_on(url: str) -> None:
    """What the application's own lifespan yields is the state of its requests."""

    @asynccontextmanager
    async def own(app: Starlette) -> AsyncGenerator[dict[str, str]]:
        yield {"greeting": "hello"}

    app = Starlette(routes=[Route("/", names)], lifespan=lifespan(maker("sync", url), own=own))
    with TestClient(app) as client:
        assert client.get("/").json() == ["default", "hello"]


def test_each_start_makes_a_registry(url: str) -> None:
    """An application that is started twice, as tests do, works the second time as well."""
    app = Starlette(routes=[Route("/", names)], lifespan=lifespan(maker("sync", url)))
    for _ in range(2):
        with TestClient(app) as client:
            assert client.get("/").json() == ["default", None]


def test_one_application_may_have_both_halves(url: str) -> None:
    """Lifespans nest, and each half is found under its own name."""
    both = lifespan(maker("sync", url), own=lifespan(maker("async", url)))
    app = Starlette(lifespan=both)
    with TestClient(app):
        assert isinstance(registry_of(app), SessionFactoryRegistry)
        assert isinstance(async_registry_of(app), AsyncSessionFactoryRegistry)


@pytest.mark.parametrize("half", HALVES)
def test_a_required_database_that_is_missing_stops_the_start(half: str, url: str) -> None:
    """The error says what to set, for all that is missing."""
    require = ("default", "reports", "archive")
    app = Starlette(lifespan=lifespan(maker(half, url), require=require))
    with pytest.raises(NotConfiguredError, match=r"(?s)'reports'.*'archive'"), TestClient(app):
        pytest.fail("it has started")


def test_a_required_database_that_is_unusable_stops_the_start() -> None:
    """A driver that is not installed is found at the start, and not by the first request."""
    app = Starlette(lifespan=lifespan(maker("sync", "oracle+oracledb://db/app")))
    with pytest.raises(SettingsError, match="oracledb"), TestClient(app):
        pytest.fail("it has started")


@pytest.mark.parametrize("half", HALVES)
def test_a_mounted_application_finds_the_registry(half: str, url: str) -> None:
    """The registry of the outer application serves those that are mounted in it."""
    find = registry_of if half == "sync" else async_registry_of

    async def inner_names(request: Request) -> Response:
        return JSONResponse([*find(request).names])

    inner = Starlette(routes=[Route("/", inner_names)])
    app = Starlette(routes=[Mount("/inner", inner)], lifespan=lifespan(maker(half, url)))
    with TestClient(app) as client:
        assert client.get("/inner/").json() == ["default"]


@pytest.mark.parametrize(
    ("made", "find", "message"),
    [
        ("sync", async_registry_of, "is of the sync half: use the sync names"),
        ("async", registry_of, "is of the async half: use the async names"),
    ],
)
def test_the_wrong_half_is_named(made: str, find: object, message: str, url: str) -> None:
    """Asking a sync application for the async half is an error that says which half it has."""
    assert callable(find)
    app = Starlette(lifespan=lifespan(maker(made, url)))
    with TestClient(app), pytest.raises(NotConfiguredError, match=message):
        find(app)


def test_without_a_lifespan_the_error_says_what_to_write() -> None:
    """An application without the lifespan is told about it by its first request."""
    client = TestClient(Starlette(routes=[Route("/", names)]))
    with pytest.raises(NotConfiguredError, match=r"pass lifespan=.*with TestClient\(app\)"):
        client.get("/")


@pytest.mark.parametrize("half", HALVES)
def test_a_connection_that_is_late_is_cut_off_and_logged(
    half: str, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """At shutdown, a session that is not closed is cut off, and the log names its line."""
    app = Starlette(lifespan=lifespan(maker(half, url), timeout=0.1))

    async def leak(request: Request) -> Response:
        if half == "sync":
            request.app.state.leaked = registry_of(request).get()()
            request.app.state.leaked.connection()
        else:
            request.app.state.leaked = async_registry_of(request).get()()
            await request.app.state.leaked.connection()
        return JSONResponse(None)

    app.router.routes.append(Route("/", leak))
    with TestClient(app) as client:
        client.get("/")

    assert "Connections of 'default' were cut off at shutdown" in caplog.text
    assert ".leak, " in caplog.text


@pytest.mark.parametrize("half", HALVES)
def test_no_connection_in_time_is_503(
    half: str, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A pool that is used up asks the client to come back, and tells it nothing else."""
    pool = {"size": 1, "max_overflow": 0, "timeout": 0.05}
    app = Starlette(lifespan=lifespan(maker(half, url, pool=pool)))
    add_error_handlers(app, retry_after=7)

    async def nested(request: Request) -> Response:
        if half == "sync":
            sessions = registry_of(request).get()
            with sessions() as outer, sessions() as inner:
                outer.connection()
                inner.connection()
        else:
            others = async_registry_of(request).get()
            async with others() as first, others() as second:
                await first.connection()
                await second.connection()
        return JSONResponse(None)

    app.router.routes.append(Route("/", nested))
    with TestClient(app) as client:
        response = client.get("/")

    assert response.status_code == 503
    assert response.headers["Retry-After"] == "7"
    assert response.headers["Cache-Control"] == "no-store"
    assert response.json() == {
        "code": "database_busy",
        "detail": "The service is busy; try again later.",
    }
    assert ".nested, " in caplog.text, "the log names the holders"


def raising(error: Exception, *, read_only: int | None = 409) -> Starlette:
    """Return an application whose one route, for HTTP and websockets, raises an error."""

    async def fail(_: Request) -> Response:
        raise error

    async def fail_socket(socket: WebSocket) -> None:
        await socket.accept()
        raise error

    app = Starlette(routes=[Route("/", fail), WebSocketRoute("/socket", fail_socket)])
    add_error_handlers(app, read_only=read_only)
    return app


def test_an_uncertain_commit_is_500_with_a_stable_body(caplog: pytest.LogCaptureFixture) -> None:
    """The client learns that it must look; the log has the error with its traceback."""
    response = TestClient(raising(CommitUncertainError("the text of this error"))).get("/")

    assert response.status_code == 500
    assert response.json() == {
        "code": "commit_uncertain",
        "detail": "The request may have been carried out or not; look before you repeat it.",
    }
    (record,) = (each for each in caplog.records if each.levelname == "ERROR")
    assert record.name == "sessionfactory.ext.replies"
    assert record.exc_info
    assert "the text of this error" in record.getMessage()


@pytest.mark.parametrize("status", [405, 409])
def test_the_status_of_a_refused_write_is_chosen(status: int) -> None:
    """The application decides which status a write in a read-only transaction has."""
    response = TestClient(raising(ReadOnlyError("not here"), read_only=status)).get("/")
    assert (response.status_code, response.json()["code"]) == (status, "read_only")


def test_a_refused_write_is_left_alone() -> None:
    """With ``None``, the error is the application's own business."""
    with pytest.raises(ReadOnlyError, match="not here"):
        TestClient(raising(ReadOnlyError("not here"), read_only=None)).get("/")


def test_a_websocket_is_closed_with_the_reason() -> None:
    """A websocket whose database fails gets a close code, and no silence."""
    socket = TestClient(raising(CommitUncertainError("lost"))).websocket_connect("/socket")
    with socket as client, pytest.raises(WebSocketDisconnect) as caught:
        client.receive_text()

    assert caught.value.code == 1011
    assert caught.value.reason.startswith("The request may have been carried out or not")
