"""Flask: factories from the application, replies to errors, health, ``flask sessionfactory check``.

There is no scoped session and no session per request: a view takes a factory, and opens its
transaction where the work is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

import click
from flask import Blueprint, Flask, current_app, jsonify, request
from flask.cli import AppGroup, with_appcontext

from sessionfactory.errors import NotConfiguredError, SettingsError
from sessionfactory.ext.registries import require_databases
from sessionfactory.ext.replies import NO_STORE, Replies, health_body, is_ready, next_handler

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from flask import Request, Response
    from flask.typing import ResponseReturnValue

    from sessionfactory.ext.registries import SyncRegistry
    from sessionfactory.interfaces import SessionFactory
    from sessionfactory.registry.registry import SessionFactoryRegistry

_KEY: Final = "sessionfactory"
_UNREACHABLE: Final = 1
_UNUSABLE: Final = 2


def init_app(
    app: Flask,
    registry: SyncRegistry,
    *,
    require: Iterable[str] = ("default",),
    read_only: int | None = 409,
    retry_after: int = 1,
) -> None:
    """Give an application its registry, replies to errors of the database, and the command.

    Call it once, in the function that makes the application. WSGI has no shutdown: the code that
    made the registry closes it, a worker in its exit hook (gunicorn's ``worker_exit``). It may be
    made before workers fork.

    Args:
        app: the application.
        registry: a ``SessionFactoryRegistry``; not closed here.
        require: databases that must be configured; their engines are built, nothing is connected.
        read_only: the status for a write in a read-only transaction; ``None`` leaves it alone.
        retry_after: seconds that a client is asked to wait if the database cannot serve it now.

    Raises:
        NotConfiguredError: databases of ``require`` are missing.
        SettingsError: an engine cannot be built.
    """
    require_databases(registry, require)
    app.extensions[_KEY] = registry
    replies = Replies(read_only, retry_after)
    handler = _handler(app, replies)
    for kind in replies.kinds:
        app.register_error_handler(kind, handler)
    app.cli.add_command(_command())


def registry_of(app: Flask | None = None) -> SessionFactoryRegistry:
    """Return the registry of an application, by default the current one.

    Raises:
        NotConfiguredError: ``init_app`` was not called for it.
    """
    registry: object = (app or current_app).extensions.get(_KEY)
    if registry is None:
        raise NotConfiguredError(
            "The application has no registry: call init_app(app, registry) of"
            " sessionfactory.ext.flask in the function that makes it"
        )
    return cast("SessionFactoryRegistry", registry)


def sessions(name: str = "default") -> SessionFactory:
    """Return a database's factory of the current application; for views and commands."""
    return registry_of().get(name)


def reader(name: str = "default") -> SessionFactory:
    """Return a database's factory of read-only transactions of the current application."""
    return registry_of().reader(name)


def health_blueprint(
    *,
    prefix: str = "/health",
    names: Iterable[str] | None = None,
    timeout: float = 2.0,
    details: Callable[[Request], bool] | None = None,
) -> Blueprint:
    """Return a blueprint with ``/health/live`` and ``/health/ready``.

    *Live* asks no database. *Ready* pings them, and is 503 if one cannot be used.

    Args:
        prefix: the path above both.
        names: databases to ping; by default all that are configured.
        timeout: seconds for all of them together.
        details: decides for a request whether it is shown the state of each database; by default
            none is.
    """
    blueprint = Blueprint("sessionfactory_health", __name__, url_prefix=prefix)
    wanted = None if names is None else tuple(names)

    def live() -> tuple[Response, int, dict[str, str]]:
        return jsonify({"status": "ok"}), 200, dict(NO_STORE)

    def ready() -> tuple[Response, int, dict[str, str]]:
        registry = registry_of()
        health = registry.ping(names=registry.names if wanted is None else wanted, timeout=timeout)
        shown = details is not None and details(request)
        status = 200 if is_ready(health) else 503
        return jsonify(health_body(health, details=shown)), status, dict(NO_STORE)

    blueprint.add_url_rule("/live", view_func=live)
    blueprint.add_url_rule("/ready", view_func=ready)
    return blueprint


def _handler(app: Flask, replies: Replies) -> Callable[[Exception], ResponseReturnValue]:
    def handle(error: Exception) -> ResponseReturnValue:
        reply = replies.reply_to(error)
        if reply is not None:
            reply.log(error)
            return jsonify(reply.body), reply.status, reply.headers
        handlers = app.error_handler_spec[None][None]
        own = next_handler(handlers, error, handle)
        if own is None:
            raise error
        return cast("ResponseReturnValue", app.ensure_sync(own)(error))

    return handle


def _command() -> AppGroup:
    group = AppGroup("sessionfactory", help="Look at the databases of the application.")

    @click.command("check")
    @click.option("--ping", is_flag=True, help="Ask each database, too.")
    @click.option("--timeout", default=2.0, show_default=True, help="Seconds that a ping may take.")
    @with_appcontext
    def check(*, ping: bool, timeout: float) -> None:
        """Check that every database of the application can be used.

        Exit status: 0, all is well; 1, a database did not answer; 2, its settings cannot be used.
        """
        _check(registry_of(), ping=ping, timeout=timeout)

    group.add_command(check)
    return group


def _check(registry: SessionFactoryRegistry, *, ping: bool, timeout: float) -> None:
    status = 0
    for name in registry.names:
        try:
            registry.get(name)
        except SettingsError as error:
            click.echo(f"{name}: {error}", err=True)
            status = _UNUSABLE
        else:
            click.echo(f"{name}: configured")
    health = registry.ping(names=registry.names, timeout=timeout) if ping and not status else {}
    for name, each in health.items():
        took = "" if each.latency is None else f" in {each.latency * 1000:.1f} ms"
        click.echo(f"{name}: {each.state}{took}{each.detail and f', {each.detail}'}")
    if not is_ready(health):
        status = _UNREACHABLE
    click.get_current_context().exit(status)
