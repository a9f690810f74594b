"""What the pytest plugin's fixtures do with databases, apart from pytest.

A module of its own, because it imports SQLAlchemy, which the plugin may not do when it is loaded.
"""

from __future__ import annotations

from contextlib import ExitStack, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Final, cast

import attrs
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from sessionfactory._null import NullSessionFactory
from sessionfactory.configuration import Place, Source, configure, mask
from sessionfactory.engine import credentials
from sessionfactory.errors import NotConfiguredError
from sessionfactory.registry import SessionFactoryRegistry
from sessionfactory.testing.rollback import RollbackSessionFactory
from sessionfactory.testing.rollback_async import AsyncRollbackSessionFactory

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator, Iterable, Mapping
    from typing import Never

    from sqlalchemy.ext.asyncio import AsyncEngine

    from sessionfactory.interfaces import AsyncSessionFactory
    from sessionfactory.settings import DatabaseSettings

_ASYNC_DRIVERS: Final = {
    "sqlite": "aiosqlite",
    "postgresql": "psycopg",
    "mysql": "aiomysql",
    "mariadb": "aiomysql",
}


@attrs.frozen
class _Options(Place):
    """The command line and the ini file of a test run, as places where databases are named."""

    kind: str = "--database-url or database_url"

    def way_to_add(self, name: str) -> str:
        return f"run pytest with --database-url {name}=URL"

    def origin(self, name: str) -> str:  # noqa: ARG002 - the same for every database
        return self.kind


def make_registry(urls: Mapping[str, str]) -> SessionFactoryRegistry:
    """Return a registry of the databases at these URLs; without any, of the environment's.

    Raises:
        SettingsError: everything that is wrong with them.
    """
    if not urls:
        return SessionFactoryRegistry.from_env()
    urls = mask(urls)  # a failing test run may print the local variables of this frame
    source = Source(_Options())
    for name in urls:
        source.put(name, ("url",), urls[name], source.place.origin(name))
    return SessionFactoryRegistry._of(configure(source))  # noqa: SLF001 - our own


class _ForbiddenSessionFactory(NullSessionFactory):
    """The null factory of a test that may not use the database, nor ask for its engine."""

    __slots__ = ()

    @property
    def engine(self) -> Never:
        raise NotConfiguredError(self.reason)


@contextmanager
def forbidden(
    registry: SessionFactoryRegistry, names: Iterable[str], reason: str
) -> Generator[None]:
    """Have a registry refuse all its databases, and those named, for a reason."""
    null = _ForbiddenSessionFactory(reason)
    with ExitStack() as overrides:
        for name in {*registry.names, *names}:
            overrides.enter_context(registry.override(name, null))
        yield


@contextmanager
def rolled_back(registry: SessionFactoryRegistry, names: Iterable[str]) -> Generator[None]:
    """Have a registry give, for these databases, views that undo everything at the end."""
    with ExitStack() as views:
        for name in names:
            sessions = registry.get(name)
            if not isinstance(sessions, NullSessionFactory):  # which has nothing to undo
                view = views.enter_context(RollbackSessionFactory(sessions))
                views.enter_context(registry.override(name, view))
        yield


@asynccontextmanager
async def async_sessions(
    registry: SessionFactoryRegistry, name: str, *, rollback: bool
) -> AsyncGenerator[AsyncSessionFactory]:
    """Open a database of a registry through its asynchronous driver, in the running event loop."""
    # Not by way of ``get``, which knows overrides, and refuses a URL with an asynchronous driver.
    catalogue = registry._catalogue  # noqa: SLF001 - our own
    settings = catalogue._configuration.databases.get(name)  # noqa: SLF001 - our own
    if settings is None:
        yield async_null(catalogue.missing(name))
        return
    engine = _async_engine(settings)
    options = settings.session
    sessions = async_sessionmaker(
        engine, autoflush=options.autoflush, expire_on_commit=options.expire_on_commit
    )
    try:
        if rollback:
            async with AsyncRollbackSessionFactory(sessions) as view:
                yield view
        else:
            yield sessions
    finally:
        await engine.dispose()


def async_null(reason: str) -> AsyncSessionFactory:
    """Return an async null factory: the sync one, which raises before anything is awaited."""
    return cast("AsyncSessionFactory", NullSessionFactory(reason))


def _async_engine(settings: DatabaseSettings) -> AsyncEngine:
    url = settings.url
    driver = _ASYNC_DRIVERS.get(url.get_backend_name())
    if driver is not None and not url.get_dialect().is_async:
        url = url.set(drivername=f"{url.get_backend_name()}+{driver}")
    engine = create_async_engine(url)
    credentials.hand_over(engine.sync_engine, settings)
    return engine
