"""What both registries share: all that does not wait."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar, cast

from sessionfactory.config.configuration import DEFAULT
from sessionfactory.drivers.tls import risk_of
from sessionfactory.errors import Fault, SettingsError, SettingsWarning
from sessionfactory.registry.catalogue import Catalogue

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from contextlib import AbstractContextManager

    from sessionfactory.config.configuration import Configuration
    from sessionfactory.config.settings import DatabaseSettings
    from sessionfactory.registry.catalogue import Makers
    from sessionfactory.status import Holder, PoolStatus

F = TypeVar("F")
E = TypeVar("E")
NO_DATABASES: Final[Mapping[str, Any]] = {}
_TO_THE_CALLER: Final = 5
"""Frames between the user's call and the one that warns."""


class _Counts(Protocol):
    """A factory that counts its connections; not every custom one does."""

    def status(self) -> PoolStatus: ...


class RegistryBase(Generic[F, E]):
    """Session factories by name: ``F`` is the interface of one half, and ``E`` its engine."""

    _catalogue: Catalogue[F]

    def _fill(
        self,
        configuration: Configuration,
        makers: Makers[F],
        require: Iterable[str],
        *,
        strict: bool,
    ) -> None:
        if strict:
            _refuse_warnings(configuration)
            require = [*require, *configuration.databases]
        for warning in configuration.warnings:
            warnings.warn(warning, SettingsWarning, stacklevel=_TO_THE_CALLER)
        self._catalogue = Catalogue(configuration, makers, require)

    @property
    def names(self) -> tuple[str, ...]:
        """The names that are configured or registered, sorted."""
        return self._catalogue.names

    def settings(self, name: str = DEFAULT) -> DatabaseSettings:
        """Return the settings of a database; nothing is built.

        Raises:
            NotConfiguredError: the database is not configured, or its factory was registered.
        """
        return self._catalogue.settings(name)

    def get(self, name: str = DEFAULT) -> F:
        """Return the factory of a database; the null factory if it is not configured.

        The factory is borrowed: it is no context manager and cannot be closed, so that a container
        does not close it at the end of a request. The registry closes it.

        Raises:
            ClosedError: the registry is closed.
            SettingsError: no engine could be built from its settings.
        """
        return self._catalogue.get(name)

    def reader(self, name: str = DEFAULT) -> F:
        """Return a factory whose transactions are read-only.

        Raises:
            ClosedError: the registry is closed.
            NotConfiguredError: the factory was registered, and has no reader.
            SettingsError: the database has no read-only transactions.
        """
        return self._catalogue.reader(name)

    def engine(self, name: str = DEFAULT) -> E:
        """Return the engine of a database: for Alembic, ``create_all``, tools.

        Raises:
            ClosedError: the registry is closed.
            NotConfiguredError: the database is not configured, or its factory has no engine.
        """
        return cast("E", self._catalogue.member(name, "engine"))

    def status(self, *, names: Iterable[str] | None = None) -> dict[str, PoolStatus]:
        """Return what the pools hold; by default those of the factories built so far.

        Factories that count nothing, such as a registered ``sessionmaker``, are left out.
        """
        factories = {name: self.get(name) for name in self._catalogue.watched(names)}
        return {
            name: cast("_Counts", factory).status()
            for name, factory in factories.items()
            if hasattr(factory, "status")
        }

    def register(self, name: str, factory: F) -> None:
        """Give a name to a factory made elsewhere, which the registry never closes.

        Raises:
            ValueError: the name is taken.
            TypeError: this is no session factory, or one of the other half.
        """
        self._catalogue.register(name, factory)

    def override(
        self, name: str, factory: F, *, reader: F | None = None
    ) -> AbstractContextManager[None]:
        """Replace a factory for the length of a block, as tests do; the real one is never given.

        Args:
            name: the database.
            factory: what ``get`` returns in the block.
            reader: what ``reader`` returns; by default ``factory`` too.

        Raises:
            TypeError: this is no session factory, or one of the other half.
        """
        return self._catalogue.override(name, factory, reader)

    def __repr__(self) -> str:
        if "_catalogue" not in vars(self):  # its constructor failed
            return f"<{type(self).__name__}: not usable>"
        shown = ", ".join(self._described(name) for name in self.names)
        return f"<{type(self).__name__}: {shown or 'no databases'}>"

    def _described(self, name: str) -> str:
        settings = self._catalogue.configuration.databases.get(name)
        return name if settings is None else f"{name} ({settings.url})"


def _refuse_warnings(configuration: Configuration) -> None:
    faults = [Fault("", warning) for warning in configuration.warnings]
    for name, settings in configuration.databases.items():
        risk = risk_of(settings)
        if risk is not None:
            faults.append(Fault(f"{name}.tls", risk))
    if faults:
        raise SettingsError(faults)


def held(cut: Mapping[str, tuple[Holder, ...]]) -> dict[str, tuple[Holder, ...]]:
    """Return, by name, the holders that were cut off; databases without any are left out."""
    return {name: holders for name, holders in cut.items() if holders}
