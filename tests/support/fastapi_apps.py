"""One small service in both halves, with three ways to a session: factory, ours, plain yield."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Final

from fastapi import FastAPI, Request

from sessionfactory.ext.fastapi import add_error_handlers, health_router, lifespan
from sessionfactory.ext.registries import AnyRegistry
from tests.support import fastapi_async, fastapi_sync
from tests.support.slow_items import maker

WAYS: Final = ("factory", "transaction", "plain")


class Gate:
    """Lets a streaming response go on when a test has looked around."""

    def __init__(self) -> None:
        self._open = asyncio.Event()

    async def chunks(self) -> AsyncGenerator[str]:
        """Yield a chunk, and another one when the gate is open."""
        yield "first "
        await asyncio.wait_for(self._open.wait(), 30)
        yield "last"

    def open(self) -> None:
        """Let all streams go on."""
        self._open.set()


def make_app(half: str, url: str, **settings: object) -> FastAPI:
    """Make the service on a database."""
    return make_app_of(half, maker(half, url, **settings)())


def make_app_of(half: str, registry: AnyRegistry) -> FastAPI:
    """Make the service on a registry."""
    app = FastAPI(lifespan=lifespan(lambda: registry))
    add_error_handlers(app)
    app.include_router(health_router())
    app.state.gate = Gate()
    app.include_router((fastapi_async if half == "async" else fastapi_sync).routes)

    @app.post("/open")
    async def open_gate(request: Request) -> None:
        request.app.state.gate.open()

    return app
