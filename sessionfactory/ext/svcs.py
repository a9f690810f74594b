"""svcs: services under their types, with pings for ``Container.get_pings()``."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, cast

from sessionfactory.ext.registries import is_async
from sessionfactory.interfaces import AsyncSessionFactory, SessionFactory

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import svcs

    from sessionfactory.ext.registries import AnyRegistry, AsyncRegistry, SyncRegistry
    from sessionfactory.status import Health


def register(
    services: svcs.Registry,
    databases: AnyRegistry,
    *,
    types: Mapping[type, str] | None = None,
    readers: Mapping[type, str] | None = None,
    timeout: float = 2.0,
) -> None:
    """Register session factories as services.

    A container never closes a factory: they belong to the registry, and the registry to the code
    that made it.

    Args:
        services: the registry of svcs.
        databases: a ``SessionFactoryRegistry``, or its async twin: then pings are awaited
            (``aping``).
        types: for each type the name of its database; by default the interface is ``default``. A
            second database is a sub-protocol: ``class Analytics(SessionFactory, Protocol)``.
        readers: for each type the name of a database whose read-only factory it is.
        timeout: seconds that a ping may take.
    """
    interface = AsyncSessionFactory if is_async(databases) else SessionFactory
    found: list[tuple[type, str, Callable[[str], object]]] = [
        *((kind, name, databases.get) for kind, name in (types or {interface: "default"}).items()),
        *((kind, name, databases.reader) for kind, name in (readers or {}).items()),
    ]
    for kind, name, find in found:
        services.register_factory(
            kind,
            partial(find, name),  # at each request, so that registry.override() is seen
            enter=False,
            ping=_ping(databases, name, timeout),
        )


def _ping(databases: AnyRegistry, name: str, timeout: float) -> Callable[[object], object]:
    def ping(_factory: object) -> None:
        _raise(name, cast("SyncRegistry", databases).ping(names=[name], timeout=timeout)[name])

    async def aping(_factory: object) -> None:
        health = await cast("AsyncRegistry", databases).ping(names=[name], timeout=timeout)
        _raise(name, health[name])

    return aping if is_async(databases) else ping


def _raise(name: str, health: Health) -> None:
    if not health.ok:
        raise ConnectionError(f"database {name!r}: {health.state}, {health.detail}")
