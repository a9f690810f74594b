"""Async twin of ``_databases``, apart from it because this half needs greenlet."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import attrs

from sessionfactory.null import AsyncNullSessionFactory
from sessionfactory.registry.registry_async import AsyncSessionFactoryRegistry
from sessionfactory.testing.memory._image import expect_all_closed
from sessionfactory.testing.pytest_support._databases import as_registry
from sessionfactory.testing.rollback.rollback_async import AsyncRollbackSessionFactory

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from sqlalchemy import URL

    from sessionfactory.config.configuration import Configuration
    from sessionfactory.interfaces import AsyncSessionFactory
    from sessionfactory.registry.registry import SessionFactoryRegistry

_PATIENCE: Final = 1.0
"""Seconds that other tasks have to give their connections back when a test is over."""


@asynccontextmanager
async def async_sessions(
    registry: SessionFactoryRegistry, name: str, *, rollback: bool
) -> AsyncGenerator[AsyncSessionFactory]:
    """Open a database of a registry through its asynchronous driver, in the running event loop.

    Raises:
        IsolationError: at the end, if a session is still open where nothing is rolled back; it is
            cut off, and the message says where it was opened.
    """
    configuration = as_registry(registry)._catalogue.configuration  # noqa: SLF001 - our own
    mine = AsyncSessionFactoryRegistry._of(_for_async(configuration, name))  # noqa: SLF001 - our own
    try:
        sessions = mine.get(name)
        if rollback and not isinstance(sessions, AsyncNullSessionFactory):
            async with AsyncRollbackSessionFactory(sessions) as view:
                yield view
        else:
            yield sessions
    finally:
        left = await mine.aclose(timeout=_PATIENCE)
    expect_all_closed(left.get(name, ()))


def _for_async(configuration: Configuration, name: str) -> Configuration:
    """Return the configuration with a driver that serves this half, too."""
    settings = configuration.databases.get(name)
    if settings is None or _has_async_driver(settings.url):
        return attrs.evolve(configuration, warnings=())  # the sync half has given them
    url = settings.url.set(drivername=settings.url.get_backend_name())
    databases = {**configuration.databases, name: attrs.evolve(settings, url=url)}
    return attrs.evolve(configuration, databases=databases, warnings=())


def _has_async_driver(url: URL) -> bool:
    dialect = url.get_dialect()
    return bool(dialect.get_async_dialect_cls(url).is_async)
