"""``Admin`` through an asynchronous driver, for a thread in which no event loop runs."""

from __future__ import annotations

from asyncio import Runner, new_event_loop
from typing import TYPE_CHECKING, ClassVar

import attrs

from sessionfactory.config.settings import PoolSettings
from sessionfactory.sessions.factory_async import AsyncSqlAlchemySessionFactory

if TYPE_CHECKING:
    from sessionfactory.config.settings import DatabaseSettings


class AdminInOwnLoop:
    """Executes statements outside of any transaction, in an event loop that runs meanwhile."""

    is_async: ClassVar = True

    def __init__(self, settings: DatabaseSettings) -> None:
        settings = attrs.evolve(settings, pool=PoolSettings(size=1, max_overflow=0))
        self._sessions = AsyncSqlAlchemySessionFactory(settings, name="admin")
        # With a factory, it leaves alone what asyncio takes for this thread's loop.
        self._runner = Runner(loop_factory=new_event_loop)

    def execute(self, statement: str) -> object:
        """Execute a statement, and return the first value of its first row, if it has rows."""
        return self._runner.run(self._execute(statement))

    def close(self) -> None:
        """Close the connection, and the loop."""
        with self._runner:
            self._runner.run(self._sessions.aclose())

    async def _execute(self, statement: str) -> object:
        engine = self._sessions.engine.execution_options(isolation_level="AUTOCOMMIT")
        async with engine.connect() as connection:
            result = await connection.exec_driver_sql(statement)
            return result.scalar() if result.returns_rows else None
