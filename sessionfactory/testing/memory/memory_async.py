"""Async twin of ``memory``, on ``aiosqlite``.

async with AsyncInMemorySessionFactory(Base.metadata, seed=add_users) as sessions:
    await Signup(sessions).register("ada@example.org")
    await sessions.reset()  # the tables, and what the seed put there; nothing else
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
from typing_extensions import TypeVar

from sessionfactory.drivers.asyncio_ext import AsyncSession
from sessionfactory.sessions.factory_async import AsyncSqlAlchemySessionFactory
from sessionfactory.testing.memory._image import Image, as_metadata, in_memory
from sessionfactory.testing.memory.memory import InMemorySessionFactory

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import MetaData
    from sqlalchemy.orm import Session

    from sessionfactory.config.settings import DatabaseSettings

A = TypeVar("A", bound=AsyncSession, default=AsyncSession)


class AsyncInMemorySessionFactory(AsyncSqlAlchemySessionFactory[A]):
    """Async twin of ``InMemorySessionFactory``; ``aclose()`` for ``close()``.

    The tables and rows are prepared without ``aiosqlite``, when the factory is made: ``seed`` is a
    plain function over a plain ``Session``, the same for both halves.

    Args:
        metadata: its tables are made.
        seed: puts rows into them; called once, in a transaction of its own.
        session_class: the class of the sessions.
        settings: of ``sqlite://``, if not the defaults with a ``pool.timeout`` of 5 seconds.
        name: what messages call it.

    Raises:
        TypeError: ``metadata`` is none, or ``seed`` is a coroutine function.
        SettingsError: ``settings`` are for another database.
    """

    def __init__(
        self,
        metadata: MetaData,
        *,
        seed: Callable[[Session], object] | None = None,
        # As in the base class, whose comment says why.
        session_class: type[A] = AsyncSession,  # type: ignore[assignment]  # pyright: ignore[reportArgumentType]
        settings: DatabaseSettings | None = None,
        name: str = "memory",
    ) -> None:
        metadata, settings = as_metadata(metadata), in_memory(settings)
        with InMemorySessionFactory(metadata, seed=seed, settings=settings, name=name) as prepared:
            content = prepared._image.content  # noqa: SLF001 - its twin
        self._image = Image(name, settings.sqlite, content)
        options = self._image.options(settings)
        settings = attrs.evolve(settings, engine_options=options)
        super().__init__(settings, name=name, session_class=session_class)

    async def reset(self) -> None:
        """Return to the prepared tables and rows; a fraction of a millisecond.

        Raises:
            IsolationError: a session is open; the message says where.
            ClosedError: the factory is closed.
        """
        self._image.expect_connection(self.status().holders)
        async with self.engine.connect() as connection:
            if not self._image.restore():
                await connection.invalidate()
