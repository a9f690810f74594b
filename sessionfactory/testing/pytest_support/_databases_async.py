"""Async twin of ``_databases``, in a module of its own because this half needs greenlet."""

from __future__ import annotations

from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Final

import attrs

from sessionfactory.null import AsyncNullSessionFactory
from sessionfactory.registry.registry_async import AsyncSessionFactoryRegistry
from sessionfactory.testing.memory._image import expect_all_closed
from sessionfactory.testing.pytest_support._databases import as_registry
from sessionfactory.testing.recording.recording_async import AsyncRecordingSessionFactory
from sessionfactory.testing.rollback.rollback_async import AsyncRollbackSessionFactory

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator, Iterable
    from contextlib import AbstractAsyncContextManager

    from sqlalchemy import URL

    from sessionfactory.config.configuration import Configuration
    from sessionfactory.config.settings import DatabaseSettings
    from sessionfactory.registry.registry import SessionFactoryRegistry
    from sessionfactory.testing.pytest_support._requests import Requested
    from sessionfactory.testing.recording.recording import Recording

_GRACE: Final = 1.0
"""Seconds that other tasks have to close their sessions when a test is over."""


@asynccontextmanager
async def async_registry(
    registry: SessionFactoryRegistry,
    names: Iterable[str],
    *,
    rolls_back: bool,
    reason_forbidden: str | None,
) -> AsyncGenerator[AsyncSessionFactoryRegistry]:
    """Open the databases of a registry with asynchronous drivers, in the running event loop.

    Args:
        registry: the registry of the sync half, which is left as it is.
        names: the databases of the test.
        rolls_back: whether what is committed to these is undone at the end.
        reason_forbidden: why no database may be used; ``None`` if the databases may.

    Raises:
        IsolationError: at the end, if a session is still open where nothing is rolled back; it is
            cut off, and the message contains the place that opened it.
    """
    configuration = as_registry(registry)._catalogue.configuration  # noqa: SLF001 - our own
    mine = AsyncSessionFactoryRegistry._of(_for_async(configuration))  # noqa: SLF001 - our own
    try:
        async with AsyncExitStack() as overrides:
            if reason_forbidden is not None:
                null = AsyncNullSessionFactory(reason_forbidden)
                for name in {*mine.names, *names}:
                    overrides.enter_context(mine.override(name, null))
            for name in names if rolls_back and reason_forbidden is None else ():
                sessions = mine.get(name)
                if not isinstance(sessions, AsyncNullSessionFactory):  # it has nothing to undo
                    undone = AsyncRollbackSessionFactory(sessions)
                    view = await overrides.enter_async_context(undone)
                    overrides.enter_context(mine.override(name, view))
            yield mine
    finally:
        left = await mine.aclose(timeout=_GRACE)
    for holders in left.values():
        expect_all_closed(holders)


def async_registry_of(
    registry: SessionFactoryRegistry, requested: Requested
) -> AbstractAsyncContextManager[AsyncSessionFactoryRegistry]:
    """Open the databases that a test, or a fixture of a module, requests."""
    return async_registry(
        registry,
        requested.names,
        rolls_back=requested.rolls_back,
        reason_forbidden=requested.reason_forbidden,
    )


@contextmanager
def recorded_async(
    registry: AsyncSessionFactoryRegistry, names: Iterable[str], recording: Recording
) -> Generator[None]:
    """Make a registry return, for these databases, factories that record what is done."""
    with ExitStack() as overrides:
        for name in names:
            recorder = AsyncRecordingSessionFactory(registry.get(name), recording=recording)
            overrides.enter_context(
                registry.override(name, recorder, reader=getattr(recorder, "reader", None))
            )
        yield


def _for_async(configuration: Configuration) -> Configuration:
    """Return the configuration with drivers that serve this half, too."""
    databases = {name: _with_driver(given) for name, given in configuration.databases.items()}
    # The sync half has issued the warnings.
    return attrs.evolve(configuration, databases=databases, warnings=())


def _with_driver(settings: DatabaseSettings) -> DatabaseSettings:
    if _has_async_driver(settings.url):
        return settings
    url = settings.url.set(drivername=settings.url.get_backend_name())
    return attrs.evolve(settings, url=url)


def _has_async_driver(url: URL) -> bool:
    try:
        dialect = url.get_dialect()
    except Exception:  # noqa: BLE001 - it is not installed: reported when the database is used
        return True
    return bool(dialect.get_async_dialect_cls(url).is_async)
