"""Classes of ``sqlalchemy.ext.asyncio``, which SQLAlchemy 2.1 does not let in without greenlet.

Without it they are empty here. So the async half can be imported, and reports what it needs when a
factory is made: ``drivers.load_dialect``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import (
        AsyncConnection,
        AsyncEngine,
        AsyncSession,
        AsyncSessionTransaction,
        async_sessionmaker,
    )
else:
    try:
        from sqlalchemy.ext.asyncio import (
            AsyncConnection,
            AsyncEngine,
            AsyncSession,
            AsyncSessionTransaction,
            async_sessionmaker,
        )
    except ImportError:

        class AsyncConnection:
            """Stands in for the connection."""

        class AsyncEngine:
            """Stands in for the engine."""

        class AsyncSession:
            """Stands in for the session."""

        class AsyncSessionTransaction:
            """Stands in for the transaction."""

        class async_sessionmaker:  # noqa: N801 - SQLAlchemy's
            """Stands in for SQLAlchemy's factory."""

            def __class_getitem__(cls, _: object) -> type[async_sessionmaker]:
                return cls


__all__ = [
    "AsyncConnection",
    "AsyncEngine",
    "AsyncSession",
    "AsyncSessionTransaction",
    "async_sessionmaker",
]
