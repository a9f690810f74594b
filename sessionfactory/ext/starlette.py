"""Starlette: a lifespan that owns the registry, replies to errors, health routes.

The registry belongs to the running application (``app.state``); no module holds one. Applications
that are mounted in it find it too.
"""

from __future__ import annotations

import inspect
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Final, TypeVar, cast, overload

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Host, Mount, Route
from starlette.websockets import WebSocket

from sessionfactory.errors import NotConfiguredError
from sessionfactory.ext.registries import close, is_async, require_databases, states
from sessionfactory.ext.replies import NO_STORE, Replies, health_body, is_ready, next_handler

if TYPE_CHECKING:
    from collections.abc import (
        AsyncGenerator,
        Awaitable,
        Callable,
        Generator,
        Iterable,
        Iterator,
        Mapping,
    )
    from contextlib import AbstractAsyncContextManager
    from typing import TypeAlias

    from sessionfactory.ext.registries import AnyRegistry
    from sessionfactory.registry.registry import SessionFactoryRegistry
    from sessionfactory.registry.registry_async import AsyncSessionFactoryRegistry

    App = TypeVar("App", bound=Starlette)
    State: TypeAlias = "Mapping[str, object]"

_REGISTRY: Final = "sessionfactory_registry"
_ASYNC_REGISTRY: Final = "sessionfactory_async_registry"
_TRY_AGAIN_LATER: Final = 1013
_INTERNAL_ERROR: Final = 1011


@overload
def lifespan(
    make: Callable[[], AnyRegistry],
    *,
    require: Iterable[str] = ...,
    timeout: float = ...,
) -> Callable[[Starlette], AbstractAsyncContextManager[State]]: ...
@overload
def lifespan(
    make: Callable[[], AnyRegistry],
    *,
    own: Callable[[App], AbstractAsyncContextManager[State | None]],
    require: Iterable[str] = ...,
    timeout: float = ...,
) -> Callable[[App], AbstractAsyncContextManager[State]]: ...
def lifespan(
    make: Callable[[], AnyRegistry],
    *,
    own: Callable[[App], AbstractAsyncContextManager[State | None]] | None = None,
    require: Iterable[str] = ("default",),
    timeout: float = 10.0,
) -> Callable[[App], AbstractAsyncContextManager[State]]:
    """Return a lifespan that makes a registry at the start and drains it at the end.

    An application that needs both halves nests two of them: ``lifespan(make_sync,
    own=lifespan(make_async))``.

    Args:
        make: makes the registry, of either half: ``SessionFactoryRegistry.from_env``, or a function
            of yours. It is called at each start.
        own: the application's own lifespan; it runs inside, so that the registry is there from its
            first line to its last. The state that it yields is passed on.
        require: databases that must be configured; their engines are built, nothing is connected.
        timeout: seconds for connections that are out to come back at the end; those that are late
            are cut off, and logged.

    Raises:
        NotConfiguredError: at the start, if databases of ``require`` are missing.
        SettingsError: at the start, if an engine cannot be built.
    """
    names = tuple(require)

    @asynccontextmanager
    async def running(app: App) -> AsyncGenerator[State]:
        registry = make()
        try:
            require_databases(registry, names)
            with _attached(app, registry):
                if own is None:
                    yield cast("State", None)  # Starlette wants a server's consent to any state
                else:
                    async with own(app) as state:
                        yield cast("State", state)
        finally:
            await close(registry, timeout)

    return running


def registry_of(where: Starlette | HTTPConnection) -> SessionFactoryRegistry:
    """Return the registry of a running application: ``registry_of(request).get()``.

    Args:
        where: the application, a request or a websocket.

    Raises:
        NotConfiguredError: the application has none, or has not started.
    """
    return cast("SessionFactoryRegistry", _found(where, _REGISTRY))


def async_registry_of(where: Starlette | HTTPConnection) -> AsyncSessionFactoryRegistry:
    """Async twin of ``registry_of``."""
    return cast("AsyncSessionFactoryRegistry", _found(where, _ASYNC_REGISTRY))


def add_error_handlers(
    app: Starlette, *, read_only: int | None = 409, retry_after: int = 1
) -> None:
    """Reply to errors of the database with a status that says what a client can do.

    No connection in time, or a server that cannot be reached, is 503 with ``Retry-After``. A COMMIT
    whose answer was lost is 500, with a body that is always the same; of a plain ``begin()`` too.
    No reply contains the error's message; the log does. A websocket is closed, with 1013 (try again
    later) or 1011 (internal error). Other errors go on to the application's own handlers.

    Args:
        app: the application.
        read_only: the status for a write in a read-only transaction; ``None`` leaves it alone.
        retry_after: seconds that a client is asked to wait.
    """
    replies = Replies(read_only, retry_after)
    handler = _handler(app, replies)
    for kind in replies.kinds:
        app.add_exception_handler(kind, handler)


def health_routes(
    *,
    prefix: str = "/health",
    names: Iterable[str] | None = None,
    timeout: float = 2.0,
    details: Callable[[Request], bool] | None = None,
) -> list[Route]:
    """Return the routes ``/health/live`` and ``/health/ready``.

    *Live* says that the process can serve a request, and asks no database: an orchestrator that
    restarts services because their database is down makes matters worse. *Ready* pings the
    databases, and is 503 if one of them cannot be used.

    Args:
        prefix: the path above both.
        names: databases to ping; by default all that are configured.
        timeout: seconds for all of them together.
        details: decides for a request whether it is shown the state of each database; by default
            none is.
    """
    wanted = None if names is None else tuple(names)

    async def live(_: Request) -> Response:
        return JSONResponse({"status": "ok"}, headers=NO_STORE)

    async def ready(request: Request) -> Response:
        health = await states(_registries(request), wanted, timeout)
        shown = details is not None and details(request)
        status = 200 if is_ready(health) else 503
        return JSONResponse(health_body(health, details=shown), status, NO_STORE)

    return [Route(f"{prefix}/live", live), Route(f"{prefix}/ready", ready)]


@contextmanager
def _attached(app: Starlette, registry: AnyRegistry) -> Generator[None]:
    """Let an application, and those that are mounted in it, find a registry."""
    key = _ASYNC_REGISTRY if is_async(registry) else _REGISTRY
    attached = [each for each in _applications(app) if not hasattr(each.state, key)]
    for each in attached:
        setattr(each.state, key, registry)
    try:
        yield
    finally:
        for each in attached:
            delattr(each.state, key)


def _applications(app: Starlette) -> Iterator[Starlette]:
    yield app
    for route in app.routes:
        if isinstance(route, Mount | Host) and isinstance(route.app, Starlette):
            yield from _applications(route.app)


def _application(where: Starlette | HTTPConnection) -> Starlette:
    return cast("Starlette", where.app) if isinstance(where, HTTPConnection) else where


def _registries(where: Starlette | HTTPConnection) -> list[AnyRegistry]:
    state = _application(where).state
    found = (getattr(state, key, None) for key in (_REGISTRY, _ASYNC_REGISTRY))
    return [cast("AnyRegistry", registry) for registry in found if registry is not None]


def _found(where: Starlette | HTTPConnection, key: str) -> object:
    registry: object = getattr(_application(where).state, key, None)
    if registry is not None:
        return registry
    if _registries(where):
        other = "async" if key == _REGISTRY else "sync"
        raise NotConfiguredError(
            f"The application's registry is of the {other} half: use the {other} names of"
            " sessionfactory.ext, or give the lifespan a registry of this half"
        )
    raise NotConfiguredError(
        "The application has no registry: pass lifespan=lifespan(SessionFactoryRegistry.from_env)"
        " of sessionfactory.ext, and start the application (in a test: with TestClient(app))"
    )


def _handler(
    app: Starlette, replies: Replies
) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def handle(connection: HTTPConnection, error: Exception) -> Response:
        reply = replies.reply_to(error)
        if reply is None:
            return await _pass_on(app, connection, error, handle)
        reply.log(error)
        if isinstance(connection, WebSocket):
            busy = reply.retry_after is not None
            await connection.close(_TRY_AGAIN_LATER if busy else _INTERNAL_ERROR, reply.detail)
        return JSONResponse(reply.body, reply.status, reply.headers)

    return handle


async def _pass_on(
    app: Starlette, connection: HTTPConnection, error: Exception, ours: object
) -> Response:
    """Call the application's own handler of an error, or raise the error again."""
    # Starlette calls the handler of Exception itself, when the error has been raised again.
    handlers = {
        kind: each for kind, each in app.exception_handlers.items() if kind is not Exception
    }
    own = next_handler(cast("dict[type[Exception], object]", handlers), error, ours)
    if own is None:
        raise error
    handler = cast("Callable[[HTTPConnection, Exception], object]", own)
    if inspect.iscoroutinefunction(handler):
        return cast("Response", await handler(connection, error))
    return cast("Response", await run_in_threadpool(handler, connection, error))
