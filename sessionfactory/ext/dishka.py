"""dishka: providers of factories, by type and by component."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator  # noqa: TC003 - dishka reads annotations
from typing import TYPE_CHECKING, Annotated, cast

from dishka import FromComponent, Provider, Scope

from sessionfactory.ext.registries import close, log_cut, require_databases
from sessionfactory.interfaces import AsyncSessionFactory, SessionFactory
from sessionfactory.registry.registry import SessionFactoryRegistry
from sessionfactory.registry.registry_async import AsyncSessionFactoryRegistry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import Session


def session_factories(  # noqa: PLR0913 - keywords, each with a default
    make: Callable[[], SessionFactoryRegistry[Session]],
    *,
    types: Mapping[type, str] | None = None,
    readers: Mapping[type, str] | None = None,
    components: Iterable[str] = (),
    require: Iterable[str] = ("default",),
    timeout: float = 10.0,
) -> tuple[Provider, ...]:
    """Return providers: ``make_container(*session_factories(SessionFactoryRegistry.from_env))``.

    The container makes the registry when it is first needed and drains it when it is closed; it
    provides ``SessionFactoryRegistry``, too.

    Args:
        make: makes the registry.
        types: for each type the name of its database; by default the interface is ``default``. A
            second database is a sub-protocol: ``class Analytics(SessionFactory, Protocol)``.
        readers: for each type the name of a database whose read-only factory it is.
        components: databases that are found by name:
            ``Annotated[SessionFactory, FromComponent("analytics")]``.
        require: databases that must be configured.
        timeout: seconds for connections that are out to come back when the container is closed.
    """
    names = tuple(require)

    def registry() -> Iterator[SessionFactoryRegistry]:
        made = make()
        try:
            require_databases(made, names)
            yield made
        finally:
            log_cut(made.close(timeout=timeout))

    def of(name: str) -> Callable[..., SessionFactory]:
        def sessions(
            registry: Annotated[SessionFactoryRegistry, FromComponent("")],
        ) -> SessionFactory:
            return registry.get(name)

        return sessions

    def reader_of(name: str) -> Callable[..., SessionFactory]:
        def reader(registry: SessionFactoryRegistry) -> SessionFactory:
            return registry.reader(name)

        return reader

    provider = Provider(scope=Scope.APP)
    provider.provide(registry, provides=SessionFactoryRegistry)
    # Not cached: registry.override() is seen, and a look-up is cheap.
    for kind, name in ({SessionFactory: "default"} if types is None else types).items():
        provider.provide(of(name), provides=kind, cache=False)
    for kind, name in (readers or {}).items():
        provider.provide(reader_of(name), provides=kind, cache=False)
    return (provider, *(_component(name, of(name), SessionFactory) for name in components))


def async_session_factories(  # noqa: PLR0913 - keywords, each with a default
    make: Callable[[], AsyncSessionFactoryRegistry[AsyncSession]],
    *,
    types: Mapping[type, str] | None = None,
    readers: Mapping[type, str] | None = None,
    components: Iterable[str] = (),
    require: Iterable[str] = ("default",),
    timeout: float = 10.0,
) -> tuple[Provider, ...]:
    """Async twin of ``session_factories``, for ``make_async_container``."""
    names = tuple(require)

    async def registry() -> AsyncIterator[AsyncSessionFactoryRegistry]:
        made = make()
        try:
            require_databases(made, names)
            yield made
        finally:
            await close(made, timeout)

    def of(name: str) -> Callable[..., AsyncSessionFactory]:
        def sessions(
            registry: Annotated[AsyncSessionFactoryRegistry, FromComponent("")],
        ) -> AsyncSessionFactory:
            return registry.get(name)

        return sessions

    def reader_of(name: str) -> Callable[..., AsyncSessionFactory]:
        def reader(registry: AsyncSessionFactoryRegistry) -> AsyncSessionFactory:
            return registry.reader(name)

        return reader

    provider = Provider(scope=Scope.APP)
    provider.provide(registry, provides=AsyncSessionFactoryRegistry)
    # Not cached: as in the sync twin.
    for kind, name in ({AsyncSessionFactory: "default"} if types is None else types).items():
        provider.provide(of(name), provides=kind, cache=False)
    for kind, name in (readers or {}).items():
        provider.provide(reader_of(name), provides=kind, cache=False)
    return (provider, *(_component(name, of(name), AsyncSessionFactory) for name in components))


def _component(name: str, source: Callable[..., object], kind: object) -> Provider:
    provider = Provider(scope=Scope.APP, component=name)
    provider.provide(source, provides=cast("type", kind), cache=False)
    return provider
