"""Litestar: a plugin with the lifespan, providers of factories, and replies to errors."""

# No ``from __future__ import annotations``: Litestar reads the annotations of providers.

from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Final, TypeAlias, cast

from litestar import Litestar, Request, Response, Router, get
from litestar.config.app import AppConfig
from litestar.datastructures import State
from litestar.di import NamedDependency, Provide
from litestar.exceptions import responses
from litestar.params import SkipValidation
from litestar.plugins import InitPlugin

from sessionfactory.errors import NotConfiguredError
from sessionfactory.ext.registries import AnyRegistry, close, require_databases, states
from sessionfactory.ext.replies import NO_STORE, Replies, health_body, is_ready, next_handler
from sessionfactory.interfaces import AsyncSessionFactory, SessionFactory

_KEY: Final = "sessionfactory_registry"
_DEFAULT: Final = "default"

AnyRequest: TypeAlias = Request[object, object, State]
AnyResponse: TypeAlias = Response[object]

# Litestar checks arguments with ``isinstance``, which the interface, a Protocol, does not allow.
Sessions: TypeAlias = NamedDependency[SkipValidation[SessionFactory]]
AsyncSessions: TypeAlias = NamedDependency[SkipValidation[AsyncSessionFactory]]


class SessionFactoryPlugin(InitPlugin):
    """Gives handlers factories as ``sessions`` and ``reader``, of a registry that it owns.

    ``async def users(sessions: Sessions, reader: Sessions)``, with ``AsyncSessions`` for the async
    half. The factories of another database are ``analytics_sessions`` and ``analytics_reader``. A
    dependency of the same name that the application has wins, so that a test brings its own.

    The registry is made before the application's own lifespans begin, and drained after they ended.

    Args:
        make: makes the registry, of either half; called at each start.
        names: databases that handlers get, beside ``default``.
        require: databases that must be configured; their engines are built, nothing is connected.
        timeout: seconds for connections that are out to come back at the end.
        read_only: the status for a write in a read-only transaction; ``None`` leaves it alone.
        retry_after: seconds that a client is asked to wait if the database cannot serve it now.
    """

    def __init__(  # noqa: PLR0913 - keywords, each with a default
        self,
        make: Callable[[], AnyRegistry],
        *,
        names: Iterable[str] = (),
        require: Iterable[str] = (_DEFAULT,),
        timeout: float = 10.0,
        read_only: int | None = 409,
        retry_after: int = 1,
    ) -> None:
        self._make = make
        self._names = (_DEFAULT, *names)
        self._require = tuple(require)
        self._timeout = timeout
        self._replies = Replies(read_only, retry_after)

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        """Add everything to the application's configuration."""
        app_config.lifespan = [self._running, *app_config.lifespan]
        for name in self._names:
            prefix = "" if name == _DEFAULT else f"{name}_"
            app_config.dependencies.setdefault(f"{prefix}sessions", _provider(name, "get"))
            app_config.dependencies.setdefault(f"{prefix}reader", _provider(name, "reader"))
        handler = _handler(self._replies)
        for kind in self._replies.kinds:
            app_config.exception_handlers.setdefault(kind, handler)
        return app_config

    @asynccontextmanager
    async def _running(self, app: Litestar) -> AsyncGenerator[None]:
        registry = self._make()
        try:
            require_databases(registry, self._require)
            app.state[_KEY] = registry
            yield
        finally:
            app.state.pop(_KEY, None)
            await close(registry, self._timeout)


def health_router(
    *,
    prefix: str = "/health",
    names: Iterable[str] | None = None,
    timeout: float = 2.0,
    details: Callable[[AnyRequest], bool] | None = None,
) -> Router:
    """Return a router with ``/health/live`` and ``/health/ready``; not in the OpenAPI schema.

    *Live* asks no database. *Ready* pings them, and is 503 if one cannot be used.

    Args:
        prefix: the path above both.
        names: databases to ping; by default all that are configured.
        timeout: seconds for all of them together.
        details: decides for a request whether it is shown the state of each database; by default
            none is.
    """
    wanted = None if names is None else tuple(names)

    @get("/live", include_in_schema=False)
    async def live() -> Response[dict[str, object]]:
        return Response({"status": "ok"}, headers=NO_STORE)

    @get("/ready", include_in_schema=False)
    async def ready(request: AnyRequest) -> Response[dict[str, object]]:
        health = await states([_registry_of(request.app.state)], wanted, timeout)
        shown = details is not None and details(request)
        status = 200 if is_ready(health) else 503
        return Response(health_body(health, details=shown), status_code=status, headers=NO_STORE)

    return Router(prefix, route_handlers=[live, ready])


def _registry_of(state: State) -> AnyRegistry:
    registry: object = state.get(_KEY)
    if registry is None:
        raise NotConfiguredError(
            "The application has not started (in a test: with TestClient(app))"
        )
    return cast("AnyRegistry", registry)


def _provider(name: str, method: str) -> Provide:
    async def provide(state: State) -> object:
        return cast("Callable[[str], object]", getattr(_registry_of(state), method))(name)

    return Provide(provide)


def _handler(replies: Replies) -> Callable[[AnyRequest, Exception], AnyResponse]:
    def handle(request: AnyRequest, error: Exception) -> AnyResponse:
        reply = replies.reply_to(error)
        if reply is not None:
            reply.log(error)
            body = cast("object", reply.body)
            return Response(body, status_code=reply.status, headers=reply.headers)
        handlers = cast("dict[type[Exception], object]", request.app.exception_handlers)
        own = next_handler(handlers, error, handle)
        if own is not None:
            return cast("Callable[[AnyRequest, Exception], AnyResponse]", own)(request, error)
        # Litestar's own handler of everything else; an error that is raised here has no response.
        if request.app.debug:
            return cast("AnyResponse", responses.create_debug_response(request, error))
        return cast("AnyResponse", responses.create_exception_response(request, error))

    return handle
