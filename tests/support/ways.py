"""The three functions, sync and async, so that one test can be run by each of them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, TypeVar

from attrs import frozen
from sqlalchemy import create_engine, make_url
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, sessionmaker

from sessionfactory import (
    AsyncSqlAlchemySessionFactory,
    DatabaseSettings,
    PoolSettings,
    SqlAlchemySessionFactory,
    run_in_transaction,
    run_in_transaction_async,
    run_sync_in_transaction,
    with_options,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import URL

    from sessionfactory import AsyncSessionFactory, SessionFactory

T = TypeVar("T")

ONE: Final = PoolSettings(size=1, max_overflow=0)
"""One connection, so that whatever needs a second one would not end."""


@frozen
class Way:
    """One of the functions, on one driver, with a factory of ours or SQLAlchemy's own."""

    driver: str
    half: str = "sync"
    """``"sync"``, ``"async"``, or ``"greenlet"`` for a plain function on the async half."""
    plain: bool = False

    def __str__(self) -> str:
        return " ".join((self.driver, self.half, *(("plain",) if self.plain else ())))

    def run(self, url: str | URL, work: Callable[[Session], T], **options: Any) -> T:
        """Do some work with a factory of its own; ``view`` has options of ``with_options``."""
        url = make_url(url)
        url = url.set(drivername=f"{url.get_backend_name()}+{self.driver}")
        if self.half == "sync":
            return self._run(url, work, options)
        return asyncio.run(self._run_async(url, work, options))

    def _run(self, url: URL, work: Callable[[Session], T], options: dict[str, Any]) -> T:
        if not self.plain:
            with SqlAlchemySessionFactory(DatabaseSettings(url, pool=ONE)) as factory:
                return run_in_transaction(_view(factory, options), work, **options)
        engine = create_engine(url, pool_size=1, max_overflow=0)
        sessions: SessionFactory = sessionmaker(engine, expire_on_commit=False)
        try:
            return run_in_transaction(_view(sessions, options), work, **options)
        finally:
            engine.dispose()

    async def _run_async(
        self, url: URL, work: Callable[[Session], T], options: dict[str, Any]
    ) -> T:
        if not self.plain:
            async with AsyncSqlAlchemySessionFactory(DatabaseSettings(url, pool=ONE)) as factory:
                return await self._within(factory, work, options)
        engine = create_async_engine(url, pool_size=1, max_overflow=0)
        try:
            sessions = async_sessionmaker(engine, expire_on_commit=False)
            return await self._within(sessions, work, options)
        finally:
            await engine.dispose()

    async def _within(
        self, sessions: AsyncSessionFactory, work: Callable[[Session], T], options: dict[str, Any]
    ) -> T:
        if "view" in options:
            sessions = with_options(sessions, **options.pop("view"))
        if self.half == "greenlet":
            return await run_sync_in_transaction(sessions, work, **options)

        async def awaited(session: AsyncSession) -> T:
            return await session.run_sync(work)

        return await run_in_transaction_async(sessions, awaited, **options)


def _view(sessions: SessionFactory, options: dict[str, Any]) -> SessionFactory:
    return with_options(sessions, **options.pop("view")) if "view" in options else sessions


POSTGRESQL: Final = (
    Way("psycopg"),
    Way("psycopg2", plain=True),
    Way("psycopg", "async"),
    Way("asyncpg", "async", plain=True),
    Way("asyncpg", "greenlet"),
    Way("asyncpg", "greenlet", plain=True),
)
HALVES: Final = (Way("psycopg"), Way("psycopg", "async"), Way("asyncpg", "greenlet"))
"""Where drivers make no difference."""
