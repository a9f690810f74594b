"""Names to factories: the one object that the composition root knows, instead of module globals."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, Generic, Protocol, Self, cast

from sqlalchemy.orm import Session
from typing_extensions import TypeVar

from sessionfactory.config import sources
from sessionfactory.config.configuration import DEFAULT, Configuration, from_settings, mask
from sessionfactory.errors import ClosedError, SessionFactoryError
from sessionfactory.null import NullSessionFactory
from sessionfactory.registry.catalogue import Catalogue, several
from sessionfactory.sessions.factory import S, SqlAlchemySessionFactory
from sessionfactory.status import Health

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from contextlib import AbstractContextManager

    from sqlalchemy import Engine

    from sessionfactory.config.settings import DatabaseSettings
    from sessionfactory.interfaces import SessionFactory
    from sessionfactory.status import Holder, PoolStatus

T = TypeVar("T", bound=Session, default=Session)
_NO_DATABASES: Final[Mapping[str, DatabaseSettings]] = {}


class _Managed(Protocol):
    """What our factories have beyond the interface; others may have some of it."""

    def ping(self, *, timeout: float) -> Health: ...
    def status(self) -> PoolStatus: ...
    def close(self, *, timeout: float) -> tuple[Holder, ...]: ...


class SessionFactoryRegistry(Generic[S]):
    """Picks a session factory by name, from configuration.

    Nothing is built until it is asked for. The registry closes what it built, and nothing that was
    registered. A name without settings gives a ``NullSessionFactory``, whose error says what to
    set. Thread-safe.

    Args:
        databases: the settings of each database.
        session_class: the class of the sessions.
        require: names that must be configured.

    Raises:
        NotConfiguredError: databases of ``require`` are missing; the message names all of them.
        SettingsError: a name is no name.
    """

    def __init__(
        self,
        databases: Mapping[str, DatabaseSettings] = _NO_DATABASES,
        *,
        session_class: type[S] = Session,  # type: ignore[assignment]  # the default of S
        require: Iterable[str] = (),
    ) -> None:
        self._fill(from_settings(databases), session_class, require)

    @classmethod
    def from_mapping(
        cls,
        mapping: Mapping[str, object],
        *,
        session_class: type[T] = Session,  # type: ignore[assignment]  # the default of T
        require: Iterable[str] = (),
    ) -> SessionFactoryRegistry[T]:
        """Read ``{"default": {"url": …, "pool": {"size": 10}}}``.

        Raises:
            SettingsError: everything that is wrong with it.
            NotConfiguredError: databases of ``require`` are missing.
        """
        mapping = mask(mapping)
        return cls._of(sources.read_mapping(mapping), session_class, require)

    @classmethod
    def from_toml(
        cls,
        path: str | os.PathLike[str],
        *,
        environ: Mapping[str, str] | None = None,
        session_class: type[T] = Session,  # type: ignore[assignment]  # the default of T
        require: Iterable[str] = (),
    ) -> SessionFactoryRegistry[T]:
        """Read ``[databases.default]`` of a TOML file, or ``[tool.sessionfactory.databases.…]``.

        Args:
            path: the file.
            environ: variables that win over the file, value by value: usually ``os.environ``.
            session_class: the class of the sessions.
            require: names that must be configured.

        Raises:
            SettingsError: everything that is wrong with it.
            NotConfiguredError: databases of ``require`` are missing.
        """
        environ = None if environ is None else mask(environ)
        return cls._of(sources.read_toml(path, environ), session_class, require)

    @classmethod
    def from_env(
        cls,
        environ: Mapping[str, str] = os.environ,
        *,
        names: Iterable[str] | None = None,
        session_class: type[T] = Session,  # type: ignore[assignment]  # the default of T
        require: Iterable[str] = (),
    ) -> SessionFactoryRegistry[T]:
        """Read ``DATABASE_URL``, ``DATABASE_POOL_SIZE``, ``ANALYTICS_DATABASE_URL``, ….

        Args:
            environ: the variables.
            names: the databases to read; by default all that have variables.
            session_class: the class of the sessions.
            require: names that must be configured.

        Raises:
            SettingsError: everything that is wrong with the variables.
            NotConfiguredError: databases of ``require`` are missing.
        """
        environ = mask(environ)
        wanted = None if names is None else frozenset(several(names))
        return cls._of(sources.read_environ(environ, wanted), session_class, require)

    @classmethod
    def _of(
        cls,
        configuration: Configuration,
        session_class: type[T] = Session,  # type: ignore[assignment]  # the default of T
        require: Iterable[str] = (),
    ) -> SessionFactoryRegistry[T]:
        registry = cast("SessionFactoryRegistry[T]", cls.__new__(cls))
        registry._fill(configuration, session_class, require)  # noqa: SLF001 - our own
        return registry

    def _fill(
        self, configuration: Configuration, session_class: type[S], require: Iterable[str]
    ) -> None:
        def build(settings: DatabaseSettings, name: str) -> SessionFactory[S]:
            return SqlAlchemySessionFactory(settings, name=name, session_class=session_class)

        self._catalogue: Catalogue[SessionFactory[S]] = Catalogue(
            configuration, build, NullSessionFactory, require
        )

    @property
    def names(self) -> tuple[str, ...]:
        """The names that are configured or registered, sorted."""
        return self._catalogue.names

    def get(self, name: str = DEFAULT) -> SessionFactory[S]:
        """Return the factory of a database; the null factory if it is not configured.

        Raises:
            ClosedError: the registry is closed.
            SettingsError: no engine could be built from its settings.
        """
        return self._catalogue.get(name)

    def reader(self, name: str = DEFAULT) -> SessionFactory[S]:
        """Return a factory whose transactions are read-only.

        Raises:
            ClosedError: the registry is closed.
            NotConfiguredError: the factory was registered, and has no reader.
            SettingsError: the database has no read-only transactions.
        """
        return self._catalogue.reader(name)

    def engine(self, name: str = DEFAULT) -> Engine:
        """Return the engine of a database: for Alembic, ``create_all``, tools.

        Raises:
            ClosedError: the registry is closed.
            NotConfiguredError: the database is not configured, or its factory has no engine.
        """
        return cast("Engine", self._catalogue.engine(name))

    def ping(
        self, *, names: Iterable[str] | None = None, timeout: float = 2.0
    ) -> dict[str, Health]:
        """Ping databases side by side, so that all of them together take ``timeout`` seconds.

        Args:
            names: which; by default those whose factories were built so far.
            timeout: seconds to wait at most.
        """
        wanted = self._catalogue.watched(names)
        if not wanted:
            return {}
        with ThreadPoolExecutor(len(wanted), thread_name_prefix="sessionfactory-ping") as threads:
            answers = {name: threads.submit(self._ping, name, timeout) for name in wanted}
        return {name: answer.result() for name, answer in answers.items()}

    def status(self, *, names: Iterable[str] | None = None) -> dict[str, PoolStatus]:
        """Return what the pools hold; by default those of the factories built so far.

        Factories that count nothing, such as a registered ``sessionmaker``, are left out.
        """
        factories = {name: self.get(name) for name in self._catalogue.watched(names)}
        return {
            name: cast("_Managed", factory).status()
            for name, factory in factories.items()
            if hasattr(factory, "status")
        }

    def register(self, name: str, factory: SessionFactory[S]) -> None:
        """Give a name to a factory made elsewhere, which the registry never closes.

        Raises:
            ValueError: the name is taken.
            TypeError: this is no session factory.
        """
        self._catalogue.register(name, factory)

    def override(
        self,
        name: str,
        factory: SessionFactory[S],
        *,
        reader: SessionFactory[S] | None = None,
    ) -> AbstractContextManager[None]:
        """Replace a factory for the length of a block, as tests do; the real one is never given.

        Args:
            name: the database.
            factory: what ``get`` returns in the block.
            reader: what ``reader`` returns; by default ``factory`` too.

        Raises:
            TypeError: this is no session factory.
        """
        return self._catalogue.override(name, factory, reader)

    def close(self, *, timeout: float = 10.0) -> dict[str, tuple[Holder, ...]]:
        """Close what was built here, newest first, all of it even if one fails.

        Args:
            timeout: seconds for all of them together.

        Returns:
            by name, the holders that were cut off; databases that drained in time are left out.

        Raises:
            ExceptionGroup: what the factories raised while they were closed.
        """
        deadline = time.monotonic() + timeout
        cut: dict[str, tuple[Holder, ...]] = {}
        errors: list[Exception] = []
        interrupt: BaseException | None = None
        for name, factory in self._catalogue.shut():
            if not hasattr(factory, "close"):
                continue
            try:
                left = max(0.0, deadline - time.monotonic())
                cut[name] = cast("_Managed", factory).close(timeout=left)
            except Exception as error:  # noqa: BLE001 - the others are closed all the same
                error.add_note(f"while closing the database {name!r}")
                errors.append(error)
            except BaseException as error:  # noqa: BLE001 - somebody is in a hurry; the same, at once
                interrupt, deadline = error, 0.0
        if interrupt is not None:
            raise interrupt
        if errors:
            raise ExceptionGroup("databases that could not be closed", errors)
        return {name: holders for name, holders in cut.items() if holders}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {', '.join(self.names) or 'no databases'}>"

    def _ping(self, name: str, timeout: float) -> Health:
        try:
            factory = self.get(name)
        except ClosedError as error:
            return Health("closed", None, str(error))
        except SessionFactoryError as error:
            return Health("unreachable", None, str(error))
        if isinstance(factory, NullSessionFactory):
            return Health("unconfigured", None, factory.reason)
        if not hasattr(factory, "ping"):
            return Health("ok", None, "this kind of factory cannot be pinged")
        try:
            return cast("_Managed", factory).ping(timeout=timeout)
        except Exception as error:  # noqa: BLE001 - another kind's; the others' answers count
            return Health("unreachable", None, f"the ping failed: {error!r}")
