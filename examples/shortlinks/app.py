"""The web application, and with it the composition root: the only place that knows the registry."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Depends, FastAPI, HTTPException
from fastapi.responses import RedirectResponse
from pydantic import BaseModel, Field, HttpUrl

from examples.shortlinks.models import TARGET_LENGTH, Base
from examples.shortlinks.service import Links
from sessionfactory import AsyncSessionFactoryRegistry
from sessionfactory.ext.fastapi import (
    AsyncReader,
    AsyncSessions,
    add_error_handlers,
    async_registry_of,
    health_router,
    lifespan,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

routes = APIRouter()


class NewLink(BaseModel):
    """What a client sends."""

    target: HttpUrl


class Followed(BaseModel):
    """A link, and how often it was followed."""

    code: str
    target: str
    followed: int


def make_app(environ: Mapping[str, str] = os.environ) -> FastAPI:
    """Put the program together: configuration, factories, the service, and its routes."""
    # Without DATABASE_URL the server does not start; the error names the variable.
    make_registry = partial(AsyncSessionFactoryRegistry.from_env, environ)
    app = FastAPI(title="Short links", lifespan=lifespan(make_registry, own=make_tables))
    add_error_handlers(app)
    app.include_router(health_router())  # in front of /{code}
    app.include_router(routes)
    return app


@asynccontextmanager
async def make_tables(app: FastAPI) -> AsyncGenerator[None]:
    """Make the tables when the application starts; a real service has migrations."""
    async with async_registry_of(app).engine().begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    yield


def get_links(sessions: AsyncSessions, reader: AsyncReader) -> Links:
    """Return the service, with factories: a session would live as long as the request."""
    return Links(sessions, reader)


Service = Annotated[Links, Depends(get_links)]


@routes.post("/links", status_code=201)
async def shorten(link: NewLink, links: Service) -> dict[str, str]:
    """Make a link, or find the one that exists."""
    target = str(link.target)
    if len(target) > TARGET_LENGTH:
        raise HTTPException(422, f"a target has at most {TARGET_LENGTH} characters")
    return {"code": await links.shorten(target)}


@routes.get("/links")
async def most_followed(
    links: Service, limit: Annotated[int, Field(ge=1, le=100)] = 10
) -> list[Followed]:
    """Return the links that are followed most."""
    found = await links.most_followed(limit)
    return [Followed(code=link.code, target=link.target, followed=link.followed) for link in found]


@routes.get("/{code}")
async def follow(code: str, links: Service) -> RedirectResponse:
    """Redirect to the target of a code."""
    target = await links.follow(code)
    if target is None:
        raise HTTPException(404, "there is no such link")
    return RedirectResponse(target)
