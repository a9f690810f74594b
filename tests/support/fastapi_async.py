"""The service's routes in the async half."""

# No ``from __future__ import annotations``: FastAPI reads the annotations of these functions.

from collections.abc import AsyncGenerator
from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Request, Response
from fastapi.responses import StreamingResponse
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from sessionfactory import run_in_transaction_async
from sessionfactory.ext.fastapi import (
    AsyncReader,
    AsyncSessions,
    AsyncTransaction,
    async_registry_of,
)
from tests.support.slow_items import CREATED, NOT_FOUND, Item

routes = APIRouter()


async def plain_async_session(sessions: AsyncSessions) -> AsyncGenerator[AsyncSession]:
    """Commit after the yield, as everybody writes it."""
    async with sessions.begin() as session:
        yield session


PlainAsyncSession = Annotated[AsyncSession, Depends(plain_async_session)]


@routes.post("/factory/{number}", status_code=CREATED)
async def by_factory(number: int, sessions: AsyncSessions) -> None:
    """Commit inside the endpoint."""
    async with sessions.begin() as session:
        session.add(Item(id=number))


@routes.post("/transaction/{number}", status_code=CREATED)
async def by_transaction(number: int, session: AsyncTransaction) -> None:
    """Commit around the endpoint."""
    session.add(Item(id=number))


@routes.post("/plain/{number}", status_code=CREATED)
async def by_plain(number: int, session: PlainAsyncSession) -> None:
    """Commit behind the response."""
    session.add(Item(id=number))


@routes.post("/retrying/{number}", status_code=CREATED)
async def by_retrying(number: int, sessions: AsyncSessions) -> None:
    """Commit by ``run_in_transaction_async``, which knows what is uncertain."""

    async def work(session: AsyncSession) -> None:
        session.add(Item(id=number))

    await run_in_transaction_async(sessions, work)


@routes.get("/items/{number}")
async def get(number: int, reader: AsyncReader) -> int:
    """Read a row."""
    async with reader() as session:
        found = await session.scalar(select(Item.id).where(Item.id == number))
    if found is None:
        raise HTTPException(NOT_FOUND)
    return found


@routes.post("/refused/{number}")
async def refused(number: int, session: AsyncTransaction) -> None:
    """Write, and refuse the request."""
    session.add(Item(id=number))
    await session.flush()
    raise HTTPException(418)


@routes.post("/readonly/{number}")
async def readonly(number: int, reader: AsyncReader) -> None:
    """Write where only reading is allowed."""
    async with reader.begin() as session:
        session.add(Item(id=number))


@routes.get("/factory-stream")
async def stream_factory(request: Request, sessions: AsyncSessions) -> Response:
    """Stream when the session is closed."""
    async with sessions() as session:
        await session.scalar(select(1))
    return StreamingResponse(request.app.state.gate.chunks())


@routes.get("/transaction-stream")
async def stream_transaction(request: Request, session: AsyncTransaction) -> Response:
    """Stream with a session in the dependencies."""
    await session.scalar(select(1))
    return StreamingResponse(request.app.state.gate.chunks())


@routes.get("/plain-stream")
async def stream_plain(request: Request, session: PlainAsyncSession) -> Response:
    """Stream with a plain session in the dependencies."""
    await session.scalar(select(1))
    return StreamingResponse(request.app.state.gate.chunks())


@routes.get("/in-use")
async def in_use(request: Request) -> int:
    """Return how many connections are out."""
    return async_registry_of(request).status()["default"].in_use
