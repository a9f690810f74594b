"""The web application, and with it the composition root: the only place that knows the registry."""

# No `from __future__ import annotations`: FastAPI reads the annotations of these functions.

import os
from collections.abc import Mapping
from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, HTTPException
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from examples.fastapi_service.models import LENGTH
from examples.fastapi_service.service import Notes
from sessionfactory import AsyncSessionFactoryRegistry
from sessionfactory.ext.fastapi import (
    AsyncReader,
    AsyncSessions,
    add_error_handlers,
    health_router,
    lifespan,
)

routes = APIRouter()


class NewNote(BaseModel):
    """What a client writes."""

    text: Annotated[str, Field(min_length=1, max_length=LENGTH)]


class WrittenNote(NewNote):
    """What a client reads."""

    id: int


def make_app(environ: Mapping[str, str] = os.environ) -> FastAPI:
    """Put the program together: configuration, factories, and routes.

    Without DATABASE_URL it does not start, and says what to set. At the end it waits for requests
    in flight, and closes every connection.
    """
    app = FastAPI(
        title="Notes", lifespan=lifespan(lambda: AsyncSessionFactoryRegistry.from_env(environ))
    )
    add_error_handlers(app)
    app.include_router(health_router())
    app.include_router(routes)
    return app


async def get_notes(sessions: AsyncSessions, reader: AsyncReader) -> Notes:
    """Return the service. What is injected is factories, not a session that lives too long."""
    return Notes(sessions, reader)


Service = Annotated[Notes, Depends(get_notes)]


@routes.post("/notes", status_code=201)
async def write(note: NewNote, notes: Service) -> WrittenNote:
    """Write a note; the response is sent when it is committed."""
    return WrittenNote(id=await notes.write(note.text), text=note.text)


@routes.get("/notes/{number}")
async def read(number: int, notes: Service) -> WrittenNote:
    """Read a note."""
    note = await notes.read(number)
    if note is None:
        raise HTTPException(404, "there is no such note")
    return WrittenNote(id=note.id, text=note.text)


@routes.get("/notes")
async def export(notes: Service) -> StreamingResponse:
    """Stream all notes; a slow client holds no connection."""
    return StreamingResponse(notes.lines(), media_type="text/tab-separated-values")
