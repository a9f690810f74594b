"""A database in memory that is a real session factory: for tests that want rows, and no server.

with InMemorySessionFactory(Base.metadata, seed=add_users) as sessions:
    Signup(sessions).register("ada@example.org")
    sessions.reset()  # the tables, and what the seed put there; nothing else
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
from sqlalchemy.orm import Session
from typing_extensions import TypeVar

from sessionfactory.sessions.factory import SqlAlchemySessionFactory
from sessionfactory.testing.memory._image import Image, as_metadata, as_seed, in_memory
from sessionfactory.testing.memory._tables import create_all

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import MetaData

    from sessionfactory.config.settings import DatabaseSettings

S = TypeVar("S", bound=Session, default=Session)


class InMemorySessionFactory(SqlAlchemySessionFactory[S]):
    """A session factory on a SQLite database in memory, with tables and rows; thread-safe.

    The database is its one connection, on which sessions take turns. A session that is opened
    inside another one's transaction waits for it in vain: ``PoolDeadlockError`` names the holder.
    Where that is what you test, use a file or ``CloningSessionFactory``.

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
        seed: Callable[[S], object] | None = None,
        # As in the base class, whose comment says why.
        session_class: type[S] = Session,  # type: ignore[assignment]  # pyright: ignore[reportArgumentType]
        settings: DatabaseSettings | None = None,
        name: str = "memory",
    ) -> None:
        metadata, seed, settings = as_metadata(metadata), as_seed(seed), in_memory(settings)
        self._image = Image(name, settings.sqlite)
        options = self._image.options(settings)
        settings = attrs.evolve(settings, engine_options=options)
        super().__init__(settings, name=name, session_class=session_class)
        try:
            self._prepare(metadata, seed)
        except BaseException:
            self.close()
            raise

    def _prepare(self, metadata: MetaData, seed: Callable[[S], object] | None) -> None:
        create_all(metadata, self.engine)
        if seed is not None:
            with self.begin() as session:
                seed(session)
        with self.engine.connect():
            self._image.take()

    def reset(self) -> None:
        """Return to the prepared tables and rows; a fraction of a millisecond.

        The engine stays, and so does its connection, unless a test left temporary tables or
        attached databases on it, or closed it.

        Raises:
            IsolationError: a session is open; the message says where.
            ClosedError: the factory is closed.
        """
        self._image.expect_connection(self.status().holders)
        with self.engine.connect() as connection:
            if not self._image.restore():
                connection.invalidate()
