"""The example `examples/fastapi_service` on a registry, and on a plain `async_sessionmaker`."""

# No `from __future__ import annotations`: FastAPI reads the annotations of these functions.

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from examples.fastapi_service.app import get_notes, make_app, routes
from examples.fastapi_service.models import Base
from examples.fastapi_service.service import Notes
from sessionfactory.ext.fastapi import async_registry_of


def ours() -> FastAPI:
    """Make the example as it is."""
    app = make_app()
    inner = app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        async with inner(app):
            async with async_registry_of(app).engine().begin() as connection:
                await connection.run_sync(Base.metadata.create_all)
            yield

    app.router.lifespan_context = lifespan
    return app


def plain() -> FastAPI:
    """Make the same routes on a plain `async_sessionmaker` with pre-ping."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        engine = create_async_engine(
            os.environ["DATABASE_URL"], pool_pre_ping=True, pool_size=5, max_overflow=10
        )
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        sessions = async_sessionmaker(engine, expire_on_commit=False)
        app.state.notes = Notes(sessions, sessions)
        yield
        await engine.dispose()

    async def notes(request: Request) -> Notes:
        found: Notes = request.app.state.notes
        return found

    app = FastAPI(lifespan=lifespan)
    app.include_router(routes)
    app.dependency_overrides[get_notes] = notes
    return app
