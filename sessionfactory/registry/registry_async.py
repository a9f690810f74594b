"""Names to factories, for the async half."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Generic, Protocol, Self, cast

from sqlalchemy.util.concurrency import greenlet_spawn
from typing_extensions import TypeVar

from sessionfactory._lazy import publish
from sessionfactory.config import sources
from sessionfactory.config.configuration import DEFAULT, Configuration, from_settings
from sessionfactory.config.hide_arguments import unseen
from sessionfactory.config.masking import Masked
from sessionfactory.drivers.asyncio_ext import AsyncEngine, AsyncSession, async_sessionmaker
from sessionfactory.errors import ClosedError, SessionFactoryError
from sessionfactory.interfaces import AsyncSessionFactory
from sessionfactory.null import AsyncNullSessionFactory
from sessionfactory.registry.borrowed import lend_async
from sessionfactory.registry.catalogue import Makers, several
from sessionfactory.registry.closing import Closing, is_ours
from sessionfactory.registry.registry_base import NO_DATABASES, RegistryBase
from sessionfactory.registry.side_by_side import results, side_by_side_async
from sessionfactory.sessions.factory_async import AsyncSqlAlchemySessionFactory
from sessionfactory.sessions.scope_async import A
from sessionfactory.status import Health

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sessionfactory.config.settings import DatabaseSettings
    from sessionfactory.status import Holder

T = TypeVar("T", bound=AsyncSession, default=AsyncSession)


class _Managed(Protocol):
    """What our factories have beyond the interface; custom ones may have a part of it."""

    async def ping(self, *, timeout: float) -> Health: ...
    async def wait_idle(self, deadline: float) -> None: ...
    async def aclose(self, *, timeout: float) -> tuple[Holder, ...]: ...


@unseen
class AsyncSessionFactoryRegistry(RegistryBase[AsyncSessionFactory[A], AsyncEngine], Generic[A]):
    """Async twin of ``SessionFactoryRegistry``; ``aclose()`` for ``close()``, and ``await`` it.

    It reads the same configuration. Nothing is built before its first use, except for the databases
    of ``require``. The registry closes what it built, and nothing that was registered. A name
    without settings gives an ``AsyncNullSessionFactory``, whose error names the setting to add.
    Thread-safe.

    Args:
        databases: the settings of each database.
        session_class: the class of the sessions.
        require: names that must be configured, with a driver that is installed.
        strict: refuse what would be a warning, and check all databases as if they were required.

    Raises:
        NotConfiguredError: databases of ``require`` are missing; the message names all of them.
        SettingsError: a name is not allowed, or a required database cannot be used.
    """

    def __init__(
        self,
        databases: Mapping[str, DatabaseSettings] = NO_DATABASES,
        *,
        session_class: type[A] = AsyncSession,  # type: ignore[assignment]  # the default of A
        require: Iterable[str] = (),
        strict: bool = False,
    ) -> None:
        self._set_up(from_settings(databases), session_class, require, strict=strict)

    @classmethod
    def from_mapping(
        cls,
        mapping: Mapping[str, object],
        *,
        session_class: type[T] = AsyncSession,  # type: ignore[assignment]  # the default of T
        require: Iterable[str] = (),
        strict: bool = False,
    ) -> AsyncSessionFactoryRegistry[T]:
        """Read ``{"default": {"url": …, "pool": {"size": 10}}}``.

        Raises:
            SettingsError: everything that is wrong with it.
            NotConfiguredError: databases of ``require`` are missing.
        """
        given, mapping = Masked[object](mapping), {}
        return cls._of(sources.read_mapping(given), session_class, require, strict=strict)

    @classmethod
    def from_toml(
        cls,
        path: str | os.PathLike[str],
        *,
        environ: Mapping[str, str] | None = None,
        session_class: type[T] = AsyncSession,  # type: ignore[assignment]  # the default of T
        require: Iterable[str] = (),
        strict: bool = False,
    ) -> AsyncSessionFactoryRegistry[T]:
        """Read ``[databases.default]`` of a TOML file, or ``[tool.sessionfactory.databases.…]``.

        Args:
            path: the file.
            environ: variables that win over the file, value by value: usually ``os.environ``.
            session_class: the class of the sessions.
            require: names that must be configured, with a driver that is installed.
            strict: refuse what would be a warning, and check all databases.

        Raises:
            SettingsError: everything that is wrong with it.
            NotConfiguredError: databases of ``require`` are missing.
        """
        given, environ = None if environ is None else Masked[object](environ), None
        return cls._of(sources.read_toml(path, given), session_class, require, strict=strict)

    @classmethod
    def from_env(  # noqa: PLR0913 - named, and each with a default
        cls,
        environ: Mapping[str, str] | None = None,
        *,
        names: Iterable[str] | None = None,
        overrides: Mapping[str, object] | None = None,
        session_class: type[T] = AsyncSession,  # type: ignore[assignment]  # the default of T
        require: Iterable[str] = (),
        strict: bool = False,
    ) -> AsyncSessionFactoryRegistry[T]:
        """Read ``DATABASE_URL``, ``DATABASE_POOL_SIZE``, ``ANALYTICS_DATABASE_URL``, ….

        Args:
            environ: the variables; by default those of the process.
            names: the databases to read; by default all that have variables.
            overrides: values that win over the variables, as ``from_mapping`` takes them; for what
                only code can express.
            session_class: the class of the sessions.
            require: names that must be configured, with a driver that is installed.
            strict: refuse what would be a warning, and check all databases.

        Raises:
            SettingsError: everything that is wrong with the variables.
            NotConfiguredError: databases of ``require`` are missing.
        """
        given, environ = Masked[object](os.environ if environ is None else environ), None
        more, overrides = None if overrides is None else Masked[object](overrides), None
        wanted = None if names is None else frozenset(several(names))
        configuration = sources.read_environ(given, wanted, more)
        return cls._of(configuration, session_class, require, strict=strict)

    @classmethod
    def _of(
        cls,
        configuration: Configuration,
        session_class: type[T] = AsyncSession,  # type: ignore[assignment]  # the default of T
        require: Iterable[str] = (),
        *,
        strict: bool = False,
    ) -> AsyncSessionFactoryRegistry[T]:
        registry = cast("AsyncSessionFactoryRegistry[T]", cls.__new__(cls))
        registry._set_up(configuration, session_class, require, strict=strict)  # noqa: SLF001 - our own
        return registry

    def _set_up(
        self,
        configuration: Configuration,
        session_class: type[A],
        require: Iterable[str],
        *,
        strict: bool,
    ) -> None:
        def build(settings: DatabaseSettings, name: str) -> AsyncSessionFactory[A]:
            return AsyncSqlAlchemySessionFactory(settings, name=name, session_class=session_class)

        makers: Makers[AsyncSessionFactory[A]] = Makers(
            "async", build, AsyncNullSessionFactory, lend_async
        )
        self._fill(configuration, makers, require, strict=strict)

    def sessionmaker(self, name: str = DEFAULT) -> async_sessionmaker[A]:
        """Return SQLAlchemy's own kind of factory, for tools that insist on one.

        Raises:
            ClosedError: the registry is closed.
            NotConfiguredError: the database is not configured, or its factory has none.
        """
        return cast("async_sessionmaker[A]", self._catalogue.member(name, "sessionmaker"))

    async def ping(
        self, *, names: Iterable[str] | None = None, timeout: float = 2.0
    ) -> dict[str, Health]:
        """Ping databases side by side, so that all of them together take ``timeout`` seconds.

        Args:
            names: which; by default those whose factories were built so far.
            timeout: seconds to wait at most.
        """
        wanted = self._catalogue.watched(names)
        outcomes = await side_by_side_async([partial(self._ping, name, timeout) for name in wanted])
        return dict(zip(wanted, results(outcomes), strict=True))

    async def aclose(self, *, timeout: float = 10.0) -> dict[str, tuple[Holder, ...]]:
        """Close what was built here, all of it even if one fails.

        All databases refuse new sessions at once, drain under one deadline, and are cut side by
        side when it is over. Custom factories are closed in turn, newest first.

        Args:
            timeout: seconds for all of them together; half a second later, all is over.

        Returns:
            by name, the holders that were cut off; databases that drained in time are left out.

        Raises:
            ExceptionGroup: what the factories raised while they were closed.
        """
        closing = Closing(self._catalogue.shut(), timeout, "aclose")
        await greenlet_spawn(closing.refuse_sessions)
        for name, factory in closing.factories:
            managed = cast("_Managed", factory)
            with closing.reporting(name):
                if is_ours(factory):
                    await managed.wait_idle(closing.deadline)
                else:
                    closing.cut[name] = await managed.aclose(timeout=closing.left)
        late = [cast("_Managed", factory) for _, factory in closing.late]
        calls = [partial(factory.aclose, timeout=0.0) for factory in late]
        return closing.finish(await side_by_side_async(calls))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _ping(self, name: str, timeout: float) -> Health:
        try:
            factory = self.get(name)
        except ClosedError as error:
            return Health("closed", None, str(error))
        except SessionFactoryError as error:
            return Health("unreachable", None, str(error))
        if isinstance(factory, AsyncNullSessionFactory):
            return Health("unconfigured", None, factory.reason)
        if not hasattr(factory, "ping"):
            return Health("ok", None, "this kind of factory cannot be pinged")
        try:
            return await cast("_Managed", factory).ping(timeout=timeout)
        except Exception as error:  # noqa: BLE001 - a custom factory's; the other answers count
            return Health("unreachable", None, f"the ping failed: {error!r}")


publish(AsyncSessionFactoryRegistry)
