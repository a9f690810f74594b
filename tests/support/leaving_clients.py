"""Clients of a FastAPI service, a third of which leave half-way."""

# No ``from __future__ import annotations``: FastAPI reads the annotations of these functions.

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Final

from fastapi import APIRouter, FastAPI
from fastapi.responses import StreamingResponse
from sqlalchemy import func, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from sessionfactory.ext.fastapi import (
    AsyncSessions,
    AsyncTransaction,
    Sessions,
    Transaction,
    add_error_handlers,
    lifespan,
)
from tests.support.slow_items import CREATED, maker

CLIENTS: Final = 200
LINES: Final = 60


class Base(DeclarativeBase):
    """The tables of this service."""


class Half(Base):
    """One of the two rows that each request writes."""

    __tablename__ = "ext_half"

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    side: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)


sync_routes = APIRouter()
async_routes = APIRouter()


@sync_routes.post("/factory/{number}", status_code=CREATED)
def by_factory(number: int, sessions: Sessions) -> None:
    """Write both halves, in two statements."""
    with sessions.begin() as session:
        for side in (1, 2):
            session.add(Half(number=number, side=side))
            session.flush()


@sync_routes.post("/transaction/{number}", status_code=CREATED)
def by_transaction(number: int, session: Transaction) -> None:
    """Write both halves, in two statements."""
    for side in (1, 2):
        session.add(Half(number=number, side=side))
        session.flush()


@sync_routes.get("/stream/{number}")
def stream(number: int, sessions: Sessions) -> StreamingResponse:
    """Write, and stream when the transaction has ended.

    A plain generator that streams with a session open needs a thread for each part, and gets none
    while all of Starlette's threads wait for the connections that such generators hold.
    """
    by_factory(number, sessions)
    return StreamingResponse("line\n" for _ in range(LINES))


@async_routes.post("/factory/{number}", status_code=CREATED)
async def by_factory_async(number: int, sessions: AsyncSessions) -> None:
    """Write both halves, in two statements."""
    async with sessions.begin() as session:
        for side in (1, 2):
            session.add(Half(number=number, side=side))
            await session.flush()


@async_routes.post("/transaction/{number}", status_code=CREATED)
async def by_transaction_async(number: int, session: AsyncTransaction) -> None:
    """Write both halves, in two statements."""
    for side in (1, 2):
        session.add(Half(number=number, side=side))
        await session.flush()


@async_routes.get("/stream/{number}")
async def stream_async(number: int, sessions: AsyncSessions) -> StreamingResponse:
    """Stream with a session open, and write at the end of it."""

    async def lines() -> AsyncGenerator[str]:
        async with sessions.begin() as session:
            session.add(Half(number=number, side=1))
            await session.flush()
            for _ in range(LINES):
                await session.scalar(select(func.count()).select_from(Half))
                yield "line\n"
            session.add(Half(number=number, side=2))

    return StreamingResponse(lines())


def make_app(half: str, url: str) -> FastAPI:
    """Make the service on a database."""
    app = FastAPI(lifespan=lifespan(maker(half, url)))
    add_error_handlers(app)
    app.include_router(async_routes if half == "async" else sync_routes)
    return app


@dataclass
class Told:
    """What the clients were told."""

    created: set[int] = field(default_factory=set[int])
    statuses: set[str] = field(default_factory=set[str])
    left: int = 0


async def send(port: int, number: int, told: Told) -> None:
    """Send one request; each third client leaves: at once, in the middle, or while it streams."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    kind = ("factory", "transaction", "stream")[number // 3 % 3]
    method = "GET" if kind == "stream" else "POST"
    head = f"{method} /{kind}/{number} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    try:
        writer.write(head.encode())
        await writer.drain()
        if number % 3 == 0:
            told.left += 1
            await asyncio.sleep(number % 7 / 200)  # before, during and after the transaction
            if kind == "stream":
                await reader.readline()
            return
        status = (await reader.readline()).split()[1].decode()
        told.statuses.add(status)
        await reader.read()
        if status == str(CREATED):
            told.created.add(number)
    finally:
        writer.close()


async def storm(port: int, first: int = 0) -> Told:
    """Run all clients at once."""
    told = Told()
    async with asyncio.TaskGroup() as group:
        for number in range(first, first + CLIENTS):
            group.create_task(send(port, number, told))
    return told
