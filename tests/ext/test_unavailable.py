"""An unreachable server, or a COMMIT without an answer, has one reply in each framework."""

# No ``from __future__ import annotations``: Litestar reads the annotations of these handlers.

from collections.abc import Callable
from contextlib import ExitStack
from typing import Final, TypeAlias

import pytest
from flask import Flask
from flask.testing import FlaskClient
from litestar import Litestar, get
from litestar import Request as LitestarRequest
from litestar import Response as LitestarResponse
from litestar.datastructures import State
from litestar.testing import TestClient as LitestarClient
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from sessionfactory import (
    AsyncSessionFactoryRegistry,
    SessionFactory,
    SessionFactoryRegistry,
)
from sessionfactory.ext import flask, litestar, starlette
from sessionfactory.testing import FaultProxy, PostgresServer

Work: TypeAlias = Callable[[], object]
Outcome: TypeAlias = tuple[int, dict[str, str], str | None]
NOTHING_LISTENS: Final = "postgresql+psycopg://app@127.0.0.1:1/app"
UNCERTAIN: Final = {
    "code": "commit_uncertain",
    "detail": "The request may have been carried out or not; look before you repeat it.",
}
UNREACHABLE: Final = {
    "code": "database_unreachable",
    "detail": "The service cannot reach its database; try again later.",
}


def in_starlette(work: Work) -> Outcome:
    """Return what a client of Starlette sees if an endpoint does this work."""

    def endpoint(_: Request) -> Response:
        work()
        return JSONResponse({})

    app = Starlette(routes=[Route("/", endpoint)])
    starlette.add_error_handlers(app, retry_after=7)
    response = TestClient(app).get("/")
    return response.status_code, response.json(), response.headers.get("Retry-After")


def in_litestar(work: Work) -> Outcome:
    """Return what a client of Litestar sees if a handler does this work."""

    @get("/", sync_to_thread=True)
    def handler() -> None:
        work()

    plugin = litestar.SessionFactoryPlugin(SessionFactoryRegistry, require=(), retry_after=7)
    with LitestarClient(Litestar([handler], plugins=[plugin], logging_config=None)) as client:
        response = client.get("/")
    return response.status_code, response.json(), response.headers.get("Retry-After")


def in_flask(work: Work) -> Outcome:
    """Return what a client of Flask sees if a view does this work."""
    response = flask_client(work).get("/")
    return response.status_code, response.get_json(), response.headers.get("Retry-After")


def flask_client(work: Work, own: type[Exception] | None = None) -> FlaskClient:
    """Return a client of an application whose view does this work."""
    app = Flask("unavailable")
    if own is not None:
        app.register_error_handler(own, lambda _: ("its own", 418))
    flask.init_app(app, SessionFactoryRegistry(), require=(), retry_after=7)

    @app.get("/")
    def view() -> str:
        work()
        return ""

    return app.test_client()


FRAMEWORKS: Final = (in_starlette, in_litestar, in_flask)


@pytest.mark.parametrize("seen_in", FRAMEWORKS)
def test_a_plain_commit_without_an_answer_is_uncertain(
    seen_in: Callable[[Work], Outcome], postgres_server: PostgresServer
) -> None:
    """SQLAlchemy's own error has the stable body if the connection was cut behind COMMIT."""
    with (
        FaultProxy(postgres_server.url) as proxy,
        SessionFactoryRegistry.from_mapping({"default": {"url": proxy.url}}) as registry,
        ExitStack() as cuts,  # entered in front of this COMMIT, behind those of connecting
    ):
        sessions: SessionFactory = registry.get()

        def work() -> None:
            with sessions.begin() as session:
                session.execute(text("SELECT pg_current_xact_id()"))
                cuts.enter_context(proxy.cut("after", "COMMIT"))

        status, body, retry_after = seen_in(work)

    assert (status, body, retry_after) == (500, UNCERTAIN, None)


@pytest.mark.parametrize("seen_in", FRAMEWORKS)
def test_a_server_that_cannot_be_reached_is_503(seen_in: Callable[[Work], Outcome]) -> None:
    """Nothing was done, so that a client may come back."""
    with SessionFactoryRegistry.from_env({"DATABASE_URL": NOTHING_LISTENS}) as registry:
        sessions: SessionFactory = registry.get()

        def work() -> None:
            with sessions.begin() as session:
                session.execute(text("SELECT 1"))

        assert seen_in(work) == (503, UNREACHABLE, "7")


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg", "pymysql"])
def test_each_driver_s_refused_connection_is_503(driver: str) -> None:
    """A refused connection is recognised in both halves, also where a driver raises OSError."""
    family = "mysql" if driver == "pymysql" else "postgresql"
    url = f"{family}+{driver}://app@127.0.0.1:1/app"

    async def asynchronous(_: Request) -> Response:
        async with (
            AsyncSessionFactoryRegistry.from_env({"DATABASE_URL": url}) as registry,
            registry.get().begin() as session,
        ):
            await session.execute(text("SELECT 1"))
        return JSONResponse({})

    def synchronous(_: Request) -> Response:
        with SessionFactoryRegistry.from_env({"DATABASE_URL": url}) as registry:
            sessions: SessionFactory = registry.get()
            with sessions.begin() as session:
                session.execute(text("SELECT 1"))
        return JSONResponse({})

    app = Starlette(routes=[Route("/", synchronous if driver == "pymysql" else asynchronous)])
    starlette.add_error_handlers(app)
    response = TestClient(app).get("/")
    assert (response.status_code, response.json()) == (503, UNREACHABLE)
    assert response.headers["Retry-After"] == "1"


def syntax_error() -> None:
    """Raise an error of SQLAlchemy that is a mistake in the program."""
    with SessionFactoryRegistry.from_env({"DATABASE_URL": "sqlite://"}) as registry:
        sessions: SessionFactory = registry.get()
        with sessions() as session:
            session.execute(text("SELEC 1"))


def test_other_errors_stay_the_framework_s() -> None:
    """A mistake in SQL is raised as it would be without the handlers."""

    def endpoint(_: Request) -> Response:
        syntax_error()
        return JSONResponse({})

    app = Starlette(routes=[Route("/", endpoint)])
    starlette.add_error_handlers(app)
    with pytest.raises(SQLAlchemyError, match="SELEC"):
        TestClient(app).get("/")
    assert TestClient(app, raise_server_exceptions=False).get("/").text == "Internal Server Error"
    assert flask_client(syntax_error).get("/").status_code == 500
    assert in_litestar(syntax_error)[:2] == (
        500,
        {"status_code": 500, "detail": "Internal Server Error"},
    )


@pytest.mark.parametrize("base", [SQLAlchemyError, Exception])
def test_the_application_s_handler_of_a_base_class_is_called(base: type[Exception]) -> None:
    """A handler of ``SQLAlchemyError`` or ``Exception`` still gets what has no reply here."""

    def fail(_: Request) -> Response:
        syntax_error()
        return JSONResponse({})

    async def own(_: Request, __: Exception) -> Response:
        return JSONResponse("its own", 418)

    app = Starlette(routes=[Route("/", fail)], exception_handlers={base: own})
    starlette.add_error_handlers(app)
    assert TestClient(app, raise_server_exceptions=False).get("/").status_code == 418

    assert flask_client(syntax_error, own=base).get("/").status_code == 418

    def litestar_own(
        _: LitestarRequest[object, object, State], __: Exception
    ) -> LitestarResponse[object]:
        return LitestarResponse("its own", status_code=418)

    @get("/", sync_to_thread=True)
    def handler() -> None:
        syntax_error()

    plugin = litestar.SessionFactoryPlugin(SessionFactoryRegistry, require=())
    litestar_app = Litestar(
        [handler], plugins=[plugin], exception_handlers={base: litestar_own}, logging_config=None
    )
    with LitestarClient(litestar_app) as client:
        assert client.get("/").status_code == 418
