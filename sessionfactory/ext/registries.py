"""What the integrations need of a registry, whichever half it is of."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias, cast

from sessionfactory.errors import NotConfiguredError
from sessionfactory.status import Health

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sessionfactory.status import Holder

_LOG: Final = logging.getLogger(__name__)
_GRACE: Final = 0.5
"""Seconds beyond a ping's own deadline, after which its thread is not waited for any longer."""
_UNKNOWN: Final = Health("unconfigured", None, "the application has no such database")


class SyncRegistry(Protocol):
    """The part of ``SessionFactoryRegistry`` that does not depend on the class of its sessions."""

    @property
    def names(self) -> tuple[str, ...]:
        """The names that are configured or registered."""
        ...

    def get(self, name: str = "default") -> object:
        """Return a factory."""
        ...

    def reader(self, name: str = "default") -> object:
        """Return a factory of read-only transactions."""
        ...

    def ping(
        self, *, names: Iterable[str] | None = None, timeout: float = 2.0
    ) -> dict[str, Health]:
        """Ping databases within ``timeout`` seconds."""
        ...

    def close(self, *, timeout: float = 10.0) -> dict[str, tuple[Holder, ...]]:
        """Drain and close, within ``timeout`` seconds."""
        ...


class AsyncRegistry(Protocol):
    """The part of ``AsyncSessionFactoryRegistry`` that does not depend on its sessions' class."""

    @property
    def names(self) -> tuple[str, ...]:
        """The names that are configured or registered."""
        ...

    def get(self, name: str = "default") -> object:
        """Return a factory."""
        ...

    def reader(self, name: str = "default") -> object:
        """Return a factory of read-only transactions."""
        ...

    async def ping(
        self, *, names: Iterable[str] | None = None, timeout: float = 2.0
    ) -> dict[str, Health]:
        """Ping databases within ``timeout`` seconds."""
        ...

    async def aclose(self, *, timeout: float = 10.0) -> dict[str, tuple[Holder, ...]]:
        """Drain and close, within ``timeout`` seconds."""
        ...


AnyRegistry: TypeAlias = SyncRegistry | AsyncRegistry


def is_async(registry: AnyRegistry) -> bool:
    """Return whether a registry is of the async half."""
    return hasattr(registry, "aclose")


def require_databases(registry: AnyRegistry, names: Iterable[str]) -> None:
    """Build the factories of databases that a service cannot do without.

    Raises:
        NotConfiguredError: some are not configured; the message names all of them.
        SettingsError: an engine cannot be built.
    """
    names = tuple(names)
    missing = [name for name in names if name not in registry.names]
    if missing:
        reasons = (cast("str", getattr(registry.get(name), "reason", name)) for name in missing)
        raise NotConfiguredError("\n".join(reasons))
    for name in names:
        registry.get(name)


async def ping(
    registry: AnyRegistry, names: Iterable[str] | None, timeout: float
) -> dict[str, Health]:
    """Ping databases from an event loop, by default all that are configured.

    Args:
        registry: either half.
        names: the databases.
        timeout: seconds; kept even if no thread is free for the sync half.
    """
    wanted = registry.names if names is None else tuple(names)
    if not wanted:
        return {}
    if is_async(registry):
        return await cast("AsyncRegistry", registry).ping(names=wanted, timeout=timeout)
    pinging = asyncio.to_thread(cast("SyncRegistry", registry).ping, names=wanted, timeout=timeout)
    try:
        return await asyncio.wait_for(pinging, timeout + _GRACE)
    except TimeoutError:
        return {name: Health("slow", None, "no thread was free for a ping") for name in wanted}


async def states(
    registries: Iterable[AnyRegistry], names: tuple[str, ...] | None, timeout: float
) -> dict[str, Health]:
    """Return the health of an application's databases, for a readiness probe.

    Args:
        registries: those of the application, of either half.
        names: databases to ping, also those that no registry has; by default all.
        timeout: seconds for all databases of a registry together.
    """
    health: dict[str, Health] = {}
    for registry in registries:
        own = [name for name in registry.names if names is None or name in names]
        health |= await ping(registry, own, timeout)
    return health | {name: _UNKNOWN for name in names or () if name not in health}


async def close(registry: AnyRegistry, timeout: float) -> None:
    """Drain and close a registry from an event loop; holders that are cut off are logged."""
    if is_async(registry):
        cut = await cast("AsyncRegistry", registry).aclose(timeout=timeout)
    else:  # in a thread: it waits for connections that the loop's own threads may hold
        cut = await asyncio.to_thread(cast("SyncRegistry", registry).close, timeout=timeout)
    log_cut(cut)


def log_cut(cut: Mapping[str, tuple[Holder, ...]]) -> None:
    """Log who was cut off when a registry was closed."""
    for name, holders in cut.items():
        listed = "; ".join(map(str, holders))
        _LOG.warning("Connections of %r were cut off at shutdown: %s", name, listed)
