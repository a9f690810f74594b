"""Litestar: a plugin with the lifespan, providers of factories, and replies to errors."""

# No ``from __future__ import annotations``: Litestar reads the annotations of providers.

from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Final, TypeAlias, cast

from litestar import Litestar, Request, Response
from litestar.config.app import AppConfig
from litestar.datastructures import State
from litestar.di import NamedDependency, Provide
from litestar.params import SkipValidation
from litestar.plugins import InitPlugin

from sessionfactory.errors import NotConfiguredError
from sessionfactory.ext.registries import AnyRegistry, close, require_databases
from sessionfactory.ext.replies import Reply, replies
from sessionfactory.interfaces import AsyncSessionFactory, SessionFactory

_KEY: Final = "sessionfactory_registry"
_DEFAULT: Final = "default"

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
        retry_after: seconds that a client is asked to wait if no connection came in time.
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
        self._replies = replies(read_only=read_only, retry_after=retry_after)

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        """Add everything to the application's configuration."""
        app_config.lifespan = [self._running, *app_config.lifespan]
        for name in self._names:
            prefix = "" if name == _DEFAULT else f"{name}_"
            app_config.dependencies.setdefault(f"{prefix}sessions", _provider(name, "get"))
            app_config.dependencies.setdefault(f"{prefix}reader", _provider(name, "reader"))
        for kind, reply in self._replies.items():
            app_config.exception_handlers.setdefault(kind, _handler(reply))
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


def _provider(name: str, method: str) -> Provide:
    async def provide(state: State) -> object:
        registry = state.get(_KEY)
        if registry is None:
            raise NotConfiguredError(
                "The application has not started (in a test: with TestClient(app))"
            )
        return cast("Callable[[str], object]", getattr(registry, method))(name)

    return Provide(provide)


def _handler(
    reply: Reply,
) -> Callable[[Request[object, object, State], Exception], Response[dict[str, str]]]:
    def handle(
        _request: Request[object, object, State], error: Exception
    ) -> Response[dict[str, str]]:
        reply.log(error)
        return Response(reply.body, status_code=reply.status, headers=reply.headers)

    return handle
