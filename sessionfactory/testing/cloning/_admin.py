"""A connection for what is said to a server, and not to a database: CREATE DATABASE, DROP, SHOW."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import attrs

from sessionfactory.config.settings import PoolSettings
from sessionfactory.sessions.factory import SqlAlchemySessionFactory

if TYPE_CHECKING:
    from sessionfactory.config.settings import DatabaseSettings


class Admin:
    """Executes statements outside of any transaction, one at a time, on one connection."""

    is_async: ClassVar = False

    def __init__(self, settings: DatabaseSettings) -> None:
        settings = attrs.evolve(settings, pool=PoolSettings(size=1, max_overflow=0))
        self._sessions = SqlAlchemySessionFactory(settings, name="admin")

    def execute(self, statement: str) -> object:
        """Execute a statement, and return the first value of its first row, if it has rows."""
        engine = self._sessions.engine.execution_options(isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            result = connection.exec_driver_sql(statement)
            return result.scalar() if result.returns_rows else None

    def close(self) -> None:
        """Close the connection."""
        self._sessions.close()
