"""Flask: views take factories from the application; the command looks at its databases."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from flask import Flask
from sqlalchemy import select

from sessionfactory import (
    CommitUncertainError,
    NotConfiguredError,
    SessionFactoryRegistry,
    SettingsError,
)
from sessionfactory.ext.flask import health_blueprint, init_app, reader, registry_of, sessions
from sessionfactory.testing import InMemorySessionFactory
from tests.support.slow_items import Base, Item

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path


def make_app(registry: SessionFactoryRegistry) -> Flask:
    """Make the application, as a factory function does."""
    app = Flask(__name__)
    init_app(app, registry, retry_after=7)
    app.register_blueprint(health_blueprint(details=lambda request: "key" in request.args))

    @app.post("/items/<int:number>")
    def add(number: int) -> str:
        with sessions().begin() as session:
            session.add(Item(id=number))
        return ""

    @app.get("/items")
    def items() -> list[int]:
        with reader()() as session:
            return list(session.scalars(select(Item.id)))

    @app.post("/readonly")
    def readonly() -> str:
        with reader().begin() as session:
            session.add(Item(id=1))
        return ""

    @app.post("/nested")
    def nested() -> str:
        with sessions()() as outer, sessions()() as inner:
            outer.connection()
            inner.connection()
        return ""

    @app.post("/uncertain")
    def uncertain() -> str:
        raise CommitUncertainError("the text of this error")

    return app


@pytest.fixture
def registry(url: str) -> Generator[SessionFactoryRegistry]:
    """A registry with one connection to a SQLite file that has the tables."""
    pool = {"size": 1, "max_overflow": 0, "timeout": 0.05}
    with SessionFactoryRegistry.from_mapping({"default": {"url": url, "pool": pool}}) as made:
        Base.metadata.create_all(made.engine())
        yield made


@pytest.fixture
def app(registry: SessionFactoryRegistry) -> Flask:
    """The application."""
    return make_app(registry)


def test_views_write_and_read(app: Flask, registry: SessionFactoryRegistry) -> None:
    """What a view wrote is committed when its response is there, and no connection is out."""
    client = app.test_client()
    assert client.post("/items/7").status_code == 200
    assert client.get("/items").json == [7]
    assert registry.status()["default"].in_use == 0


def test_a_test_brings_another_database(app: Flask) -> None:
    """An override of the application's registry reaches the views."""
    with InMemorySessionFactory(Base.metadata) as fake, registry_of(app).override("default", fake):
        assert app.test_client().post("/items/8").status_code == 200
        assert app.test_client().get("/items").json == [8]
    assert app.test_client().get("/items").json == []


def test_errors_of_the_database_have_their_status(
    app: Flask, caplog: pytest.LogCaptureFixture
) -> None:
    """A reader's write is 409, an empty pool 503, an uncertain COMMIT 500, without details."""
    client = app.test_client()
    refused, busy, lost = (client.post(f"/{path}") for path in ("readonly", "nested", "uncertain"))

    assert (refused.status_code, refused.get_json()["code"]) == (409, "read_only")
    assert (busy.status_code, busy.get_json()["code"]) == (503, "database_busy")
    assert busy.headers["Retry-After"] == "7"
    assert (lost.status_code, lost.get_json()["code"]) == (500, "commit_uncertain")
    assert "the text of this error" not in lost.text
    assert "the text of this error" in caplog.text


def test_health(app: Flask) -> None:
    """Liveness asks no database; readiness does, and shows details where they are allowed."""
    client = app.test_client()
    assert client.get("/health/live").json == {"status": "ok"}
    assert client.get("/health/ready").json == {"status": "ok"}
    assert client.get("/health/ready?key").get_json()["databases"]["default"]["state"] == "ok"


def test_not_ready(tmp_path: Path) -> None:
    """A database that cannot be used is a 503 that says nothing more."""
    missing = {"DATABASE_URL": f"sqlite:///{tmp_path}/missing/app.db"}
    with SessionFactoryRegistry.from_env(missing) as registry:
        response = make_app(registry).test_client().get("/health/ready")
    assert (response.status_code, response.json) == (503, {"status": "unavailable"})


def test_a_missing_database_stops_the_start() -> None:
    """The application is not made without the databases that it requires."""
    with pytest.raises(NotConfiguredError, match="set DATABASE_URL"):
        make_app(SessionFactoryRegistry.from_env({}))


def test_an_application_without_registry() -> None:
    """The error says what to call."""
    with pytest.raises(NotConfiguredError, match=r"call init_app\(app, registry\)"):
        registry_of(Flask(__name__))


def test_the_command_checks(app: Flask) -> None:
    """``flask sessionfactory check`` lists the databases, and asks them only with --ping."""
    run = app.test_cli_runner().invoke
    checked = run(args=["sessionfactory", "check"])
    assert (checked.exit_code, checked.output) == (0, "default: configured\n")
    pinged = run(args=["sessionfactory", "check", "--ping"])
    assert pinged.exit_code == 0
    assert "default: ok in " in pinged.output


def test_the_command_tells_what_is_wrong(tmp_path: Path, url: str) -> None:
    """1: a database does not answer; 2: settings cannot be used; each with a sentence."""
    with SessionFactoryRegistry.from_env(
        {
            "DATABASE_URL": url,
            "REPORTS_DATABASE_URL": f"sqlite:///{tmp_path}/missing/reports.db",
        }
    ) as registry:
        run = make_app(registry).test_cli_runner().invoke
        away = run(args=["sessionfactory", "check", "--ping", "--timeout", "0.5"])
    assert away.exit_code == 1
    assert "reports: unreachable, " in away.output

    with SessionFactoryRegistry.from_env(
        {"DATABASE_URL": url, "REPORTS_DATABASE_URL": "oracle+oracledb://db/app"}
    ) as registry:
        unusable = (
            make_app(registry).test_cli_runner().invoke(args=["sessionfactory", "check", "--ping"])
        )
        with pytest.raises(SettingsError):
            registry.get("reports")
    assert unusable.exit_code == 2
    assert "reports: Invalid database settings" in unusable.output
