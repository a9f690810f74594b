"""The web application, and with it the composition root: the only place that knows the registry."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from flask import Blueprint, Flask, request

from examples.flask_service.models import Base
from examples.flask_service.service import GuestBook
from sessionfactory import SessionFactoryRegistry
from sessionfactory.ext.flask import health_blueprint, init_app, reader, registry_of, sessions

if TYPE_CHECKING:
    from collections.abc import Mapping

routes = Blueprint("guests", __name__)


def create_app(environ: Mapping[str, str] = os.environ) -> Flask:
    """Put the program together: configuration, factories, and routes.

    Without DATABASE_URL it does not start, and says what to set. It may be made before workers fork
    (gunicorn's `--preload`): each has its own connections.
    """
    app = Flask(__name__)
    init_app(app, SessionFactoryRegistry.from_env(environ))
    app.register_blueprint(health_blueprint())
    app.register_blueprint(routes)
    return app


def guest_book() -> GuestBook:
    """Return the service of the current application."""
    return GuestBook(sessions(), reader())


@routes.post("/guests")
def sign() -> tuple[dict[str, object], int]:
    """Sign a guest in; the response is sent when that is committed."""
    name = request.form["name"]
    return {"id": guest_book().sign(name), "name": name}, 201


@routes.get("/guests")
def guests() -> list[str]:
    """Return who was here."""
    return [entry.name for entry in guest_book().latest()]


@routes.cli.command("create-tables")
def create_tables() -> None:
    """Make the tables."""
    Base.metadata.create_all(registry_of().engine())
