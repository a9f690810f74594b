"""The web application, and with it the composition root: the only place that knows the registry."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import BaseModel, Field, HttpUrl

from examples.shortlinks.models import TARGET_LENGTH, Base
from examples.shortlinks.service import Links
from sessionfactory import AsyncSessionFactoryRegistry

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

routes = APIRouter()


class NewLink(BaseModel):
    """What a client asks for."""

    target: HttpUrl


class Followed(BaseModel):
    """A link, and how often it was followed."""

    code: str
    target: str
    followed: int


def make_app(environ: Mapping[str, str] = os.environ) -> FastAPI:
    """Put the program together: configuration, factories, the service, and its routes."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        # Without DATABASE_URL the server does not start, and says what to set. The end of this
        # block waits for requests in flight, and closes every connection.
        async with AsyncSessionFactoryRegistry.from_env(environ, require=("default",)) as registry:
            async with registry.engine().begin() as connection:
                await connection.run_sync(Base.metadata.create_all)
            app.state.registry = registry
            yield

    app = FastAPI(title="Short links", lifespan=lifespan)
    app.include_router(routes)
    return app


def get_registry(request: Request) -> AsyncSessionFactoryRegistry:
    """Return the registry of the running application."""
    registry: AsyncSessionFactoryRegistry = request.app.state.registry
    return registry


Registry = Annotated[AsyncSessionFactoryRegistry, Depends(get_registry)]


def get_links(registry: Registry) -> Links:
    """Return the service. What is injected is factories, not a session that lives too long."""
    return Links(registry.get(), registry.reader())


Service = Annotated[Links, Depends(get_links)]


@routes.post("/links", status_code=201)
async def shorten(link: NewLink, links: Service) -> dict[str, str]:
    """Make a link, or find the one that there is."""
    target = str(link.target)
    if len(target) > TARGET_LENGTH:
        raise HTTPException(422, f"a target has at most {TARGET_LENGTH} characters")
    return {"code": await links.shorten(target)}


@routes.get("/links")
async def most_followed(
    links: Service, limit: Annotated[int, Field(ge=1, le=100)] = 10
) -> list[Followed]:
    """Say which links are followed most."""
    found = await links.most_followed(limit)
    return [Followed(code=link.code, target=link.target, followed=link.followed) for link in found]


@routes.get("/health")
async def health(registry: Registry, response: Response) -> dict[str, str]:
    """Say how the databases do, within two seconds whatever they do."""
    found = await registry.ping(names=registry.names)
    if not all(answer.ok for answer in found.values()):
        response.status_code = 503
    return {name: answer.state for name, answer in found.items()}


@routes.get("/{code}")
async def follow(code: str, links: Service) -> RedirectResponse:
    """Lead to where a code leads."""
    target = await links.follow(code)
    if target is None:
        raise HTTPException(404, "there is no such link")
    return RedirectResponse(target)
