"""Async twin of ``cloning``: a database of its own for every test, cloned from a prepared one.

async with AsyncCloningSessionFactory(server.async_url, Base.metadata) as cloning:  # once
    async with cloning.clone() as sessions:  # in every test
        await Signup(sessions).register("ada@example.org")
"""

from __future__ import annotations

import asyncio
import warnings
from contextlib import asynccontextmanager
from functools import partial
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Generic, Self

import attrs
from typing_extensions import TypeVar

from sessionfactory.config.settings import DatabaseSettings
from sessionfactory.drivers.asyncio_ext import AsyncSession
from sessionfactory.sessions.factory_async import AsyncSqlAlchemySessionFactory
from sessionfactory.testing.cloning._admin_async import AdminInOwnLoop
from sessionfactory.testing.cloning._cloner import PATIENCE, Cloner
from sessionfactory.testing.cloning._templates import templates_for
from sessionfactory.testing.memory._image import (
    IsolationError,
    as_metadata,
    as_seed,
    expect_all_closed,
)
from sessionfactory.testing.memory._tables import create_all

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from types import TracebackType

    from sqlalchemy import URL, MetaData
    from sqlalchemy.ext.asyncio import AsyncEngine
    from sqlalchemy.orm import Session

A = TypeVar("A", bound=AsyncSession, default=AsyncSession)


class AsyncCloningSessionFactory(Generic[A]):
    """Async twin of ``CloningSessionFactory``; ``aclose()`` for ``close()``.

    It belongs to no event loop: one that is made once serves tests that have a loop each. Each
    clone's connections belong to the loop in which it was asked for, and are opened there.

    Args:
        settings: the server, by a database on it whose user may create others: it is not changed.
            For SQLite ``sqlite://`` will do: each test gets a file in a temporary directory.
        prepare: makes the tables: a metadata, or a coroutine function of the template's engine.
        seed: puts rows into them: a plain function over a plain ``Session``, the same for both
            halves.
        session_class: the class of the sessions.
        ahead: how many clones are made before they are asked for; 0 makes each on demand.

    Raises:
        SettingsError: these settings cannot be used, or this database cannot be copied.
        TypeError: ``prepare`` is neither, or ``seed`` is a coroutine function.
    """

    def __init__(
        self,
        settings: DatabaseSettings | URL | str,
        prepare: MetaData | Callable[[AsyncEngine], Awaitable[object]],
        *,
        seed: Callable[[Session], object] | None = None,
        # As in AsyncSqlAlchemySessionFactory, which says why.
        session_class: type[A] = AsyncSession,  # type: ignore[assignment]  # pyright: ignore[reportArgumentType]
        ahead: int = 2,
    ) -> None:
        self._settings = (
            settings if isinstance(settings, DatabaseSettings) else DatabaseSettings(settings)
        )
        self._prepare = _as_function(prepare)
        self._seed = as_seed(seed)
        self._session_class = session_class
        self._templates = templates_for(self._settings, AdminInOwnLoop)
        self._cloner = Cloner(self._templates, self._factory, ahead)

    @asynccontextmanager
    async def clone(self) -> AsyncGenerator[AsyncSqlAlchemySessionFactory[A]]:
        """Give a session factory on a database that nobody else uses, and drop it at the end.

        Raises:
            IsolationError: there is no clone; the message has the database's words. Or, at the end,
                a session is still open; it is cut off, and the message says where it was opened.
            ClosedError: ``aclose()`` was called.
        """
        await self._expect_template()
        sessions = await self._take()
        try:
            yield sessions
        finally:
            try:
                left = await sessions.aclose(timeout=PATIENCE)
            finally:
                self._cloner.drop(sessions.name)
        expect_all_closed(left)

    async def aclose(self) -> None:
        """Drop every database that is left, the template too; idempotent.

        Raises:
            IsolationError: one could not be dropped; the message has the database's words.
        """
        stopped = self._cloner.stop()
        if stopped is None:
            return
        try:
            for sessions in await asyncio.shield(asyncio.wrap_future(stopped)):
                await sessions.aclose()
        finally:
            ended = self._cloner.end()
        await asyncio.shield(asyncio.wrap_future(ended))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            await self.aclose()
        except IsolationError as kept:
            if error is None:
                raise
            error.add_note(str(kept))  # it may be the reason, and must not hide behind this one

    def __del__(self) -> None:
        cloner = getattr(self, "_cloner", None)  # absent if the settings were refused
        if cloner is not None and cloner.leaves_databases:
            message = f"{type(self).__name__} was not closed; its databases are left on the server"
            warnings.warn(message, ResourceWarning, source=self, stacklevel=1)

    async def _expect_template(self) -> None:
        """Have one caller prepare the template, while the others wait; if he fails, the next."""
        while (attempt := self._cloner.attempt()) is not None:
            if await asyncio.shield(asyncio.wrap_future(attempt)):
                return
        template: str | None = None
        try:
            template = await self._make_template()
        finally:
            self._cloner.end_attempt(template)

    async def _make_template(self) -> str:
        name = await asyncio.shield(asyncio.wrap_future(self._cloner.create()))
        try:
            async with self._factory(name) as sessions:
                await self._prepare(sessions.engine)
                if self._seed is not None:
                    async with sessions.begin() as session:
                        await session.run_sync(self._seed)
        except BaseException:  # pragma: no cover - coverage loses sight after so many greenlets
            self._cloner.drop(name)
            raise
        return name  # pragma: no cover - the same; every test with a clone goes through it

    async def _take(self) -> AsyncSqlAlchemySessionFactory[A]:
        clone = self._cloner.take()
        try:
            # Shielded, as all futures are here: who is cancelled does not cancel them.
            return await asyncio.shield(asyncio.wrap_future(clone))
        except asyncio.CancelledError:
            self._cloner.give_back(clone)
            raise

    def _factory(self, name: str) -> AsyncSqlAlchemySessionFactory[A]:
        settings = attrs.evolve(self._settings, url=self._templates.url(name))
        return AsyncSqlAlchemySessionFactory(settings, name=name, session_class=self._session_class)


def _as_function(
    prepare: MetaData | Callable[[AsyncEngine], Awaitable[object]],
) -> Callable[[AsyncEngine], Awaitable[object]]:
    if not isinstance(prepare, type) and callable(prepare):
        if iscoroutinefunction(prepare):
            return prepare
        raise TypeError("prepare is a function that nobody could await; give a coroutine function")
    make = partial(create_all, as_metadata(prepare))

    async def make_all(engine: AsyncEngine) -> None:
        async with engine.begin() as connection:
            await connection.run_sync(make)

    return make_all
