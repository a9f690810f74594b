"""The service's routes in the sync half."""

# No ``from __future__ import annotations``: FastAPI reads the annotations of these functions.

from collections.abc import Generator
from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Request, Response
from fastapi.responses import StreamingResponse
from sqlalchemy import select
from sqlalchemy.orm import Session

from sessionfactory import run_in_transaction
from sessionfactory.ext.fastapi import Reader, Sessions, Transaction, registry_of
from tests.support.slow_items import CREATED, NOT_FOUND, Item

routes = APIRouter()


def plain_session(sessions: Sessions) -> Generator[Session]:
    """Commit after the yield, as everybody writes it."""
    with sessions.begin() as session:
        yield session


PlainSession = Annotated[Session, Depends(plain_session)]


@routes.post("/factory/{number}", status_code=CREATED)
def by_factory(number: int, sessions: Sessions) -> None:
    """Commit inside the endpoint."""
    with sessions.begin() as session:
        session.add(Item(id=number))


@routes.post("/transaction/{number}", status_code=CREATED)
def by_transaction(number: int, session: Transaction) -> None:
    """Commit around the endpoint."""
    session.add(Item(id=number))


@routes.post("/plain/{number}", status_code=CREATED)
def by_plain(number: int, session: PlainSession) -> None:
    """Commit behind the response."""
    session.add(Item(id=number))


@routes.post("/retrying/{number}", status_code=CREATED)
def by_retrying(number: int, sessions: Sessions) -> None:
    """Commit by ``run_in_transaction``, which knows what is uncertain."""
    run_in_transaction(sessions, lambda session: session.add(Item(id=number)))


@routes.get("/items/{number}")
def get(number: int, reader: Reader) -> int:
    """Read a row."""
    with reader() as session:
        found = session.scalar(select(Item.id).where(Item.id == number))
    if found is None:
        raise HTTPException(NOT_FOUND)
    return found


@routes.post("/refused/{number}")
def refused(number: int, session: Transaction) -> None:
    """Write, and refuse the request."""
    session.add(Item(id=number))
    session.flush()
    raise HTTPException(418)


@routes.post("/readonly/{number}")
def readonly(number: int, reader: Reader) -> None:
    """Write where only reading is allowed."""
    with reader.begin() as session:
        session.add(Item(id=number))


@routes.get("/factory-stream")
def stream_factory(request: Request, sessions: Sessions) -> Response:
    """Stream when the session is closed."""
    with sessions() as session:
        session.scalar(select(1))
    return StreamingResponse(request.app.state.gate.chunks())


@routes.get("/transaction-stream")
def stream_transaction(request: Request, session: Transaction) -> Response:
    """Stream with a session in the dependencies."""
    session.scalar(select(1))
    return StreamingResponse(request.app.state.gate.chunks())


@routes.get("/plain-stream")
def stream_plain(request: Request, session: PlainSession) -> Response:
    """Stream with a plain session in the dependencies."""
    session.scalar(select(1))
    return StreamingResponse(request.app.state.gate.chunks())


@routes.get("/in-use")
async def in_use(request: Request) -> int:
    """Return how many connections are out."""
    return registry_of(request).status()["default"].in_use
