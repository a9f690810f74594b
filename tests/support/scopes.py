"""Scopes of every kind on a pool that is full all the time, none of which may be refused."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Generator  # noqa: TC003 - FastAPI reads annotations
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Final

import httpx2
from fastapi import Depends, FastAPI, Request
from sqlalchemy import text
from sqlalchemy.orm import Session  # noqa: TC002 - FastAPI reads annotations

from sessionfactory import (
    AsyncSqlAlchemySessionFactory,
    DatabaseSettings,
    PoolSettings,
    SqlAlchemySessionFactory,
)

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

WORKERS: Final = 8
SIZE: Final = WORKERS * (2 - 1) + 1
"""HikariCP's formula: with so many connections, no caller of two at a time waits for ever."""
ONE: Final = text("SELECT 1")


def _settings(url: str, size: int) -> DatabaseSettings:
    return DatabaseSettings(url, pool=PoolSettings(size=size, max_overflow=0, timeout=120))


def mixed_scopes(url: str, number: int) -> int:
    """Run scopes in threads; return how many of them ended well. What one raises is raised."""
    with (
        SqlAlchemySessionFactory(_settings(url, SIZE)) as factory,
        ThreadPoolExecutor(WORKERS) as helpers,
        ThreadPoolExecutor(WORKERS) as workers,
    ):

        def opened() -> Session:
            session = factory()
            session.execute(ONE)
            return session

        @contextmanager
        def dependency() -> Generator[Session]:
            with factory() as session:
                yield session

        def finish(session: Session) -> None:
            session.execute(ONE)
            time.sleep(0.0005)
            session.close()

        def scope(kind: int) -> None:
            if kind == 0:
                with factory() as outer:
                    outer.execute(ONE)
                    with factory() as inner:
                        inner.execute(ONE)
            elif kind == 1:
                with opened(), factory() as inner:
                    inner.execute(ONE)
            elif kind == 2:
                with dependency() as session, factory() as inner:
                    session.execute(ONE)
                    inner.execute(ONE)
            elif kind == 3:
                session = opened()
                given = helpers.submit(finish, session)
                with factory() as mine:
                    mine.execute(ONE)
                given.result()
            else:
                with factory() as session:
                    session.execute(ONE)
                    time.sleep(0.0005)

        dice = random.Random(number)
        done = workers.map(scope, [dice.randrange(5) for _ in range(number)])
        return len(list(done))


def mixed_tasks(url: str, number: int) -> int:
    """Run scopes in tasks; return how many of them ended well."""

    async def main() -> int:
        gate = asyncio.Semaphore(WORKERS)
        async with AsyncSqlAlchemySessionFactory(_settings(url, SIZE)) as factory:

            async def finish(session: AsyncSession) -> None:
                await session.execute(ONE)
                await session.close()

            async def scope(kind: int) -> int:
                async with gate:
                    if kind == 0:
                        async with factory() as outer, factory() as inner:
                            await outer.execute(ONE)
                            await inner.execute(ONE)
                    elif kind == 1:
                        async with factory() as session, factory() as inner:
                            await asyncio.wait_for(session.execute(ONE), 60)
                            await asyncio.wait_for(inner.execute(ONE), 60)
                    elif kind == 2:
                        session = factory()
                        given = asyncio.create_task(finish(session))
                        async with factory() as mine:
                            await mine.execute(ONE)
                        await given
                    else:
                        async with factory() as session:
                            await session.execute(ONE)
                return 1

            dice = random.Random(number)
            return sum(await asyncio.gather(*(scope(dice.randrange(4)) for _ in range(number))))

    return asyncio.run(main())


app = FastAPI()


def get_session(request: Request) -> Generator[Session]:
    """Open the request's session, in whichever thread there is."""
    with request.app.state.factory() as session:
        session.execute(ONE)
        yield session


@app.get("/")
def get(session: Annotated[Session, Depends(get_session)]) -> int:
    """Use it in another one, perhaps."""
    time.sleep(0.0005)
    return len(session.execute(ONE).all())


def requests(url: str, number: int) -> int:
    """Ask the application, many at a time, on a pool of two; return how many were served."""

    async def main() -> int:
        transport = httpx2.ASGITransport(app)
        gate = asyncio.Semaphore(30)
        async with httpx2.AsyncClient(transport=transport, base_url="http://app") as client:

            async def ask() -> bool:
                async with gate:
                    return (await client.get("/")).text == "1"

            return sum(await asyncio.gather(*(ask() for _ in range(number))))

    with SqlAlchemySessionFactory(_settings(url, 2)) as factory:
        app.state.factory = factory
        return asyncio.run(main())
