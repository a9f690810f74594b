"""Which factory a name means at this moment; what both registries share, for it never waits."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Generic, TypeVar, cast

from sessionfactory.errors import ClosedError, NotConfiguredError, SettingsError
from sessionfactory.interfaces import makes_sessions
from sessionfactory.registry.custom_factories import make_factory

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable
    from contextlib import AbstractContextManager

    from sessionfactory.config.configuration import Configuration
    from sessionfactory.config.settings import DatabaseSettings

F = TypeVar("F")


class Catalogue(Generic[F]):
    """Finds factories by name: overridden, registered, or built on first demand. Thread-safe.

    Args:
        configuration: the databases that are configured.
        build: makes the factory of a database.
        null: makes the factory of a database that is not configured, from the reason.
        require: names that must be configured.

    Raises:
        NotConfiguredError: databases of ``require`` are missing; the message names all of them.
    """

    def __init__(
        self,
        configuration: Configuration,
        build: Callable[[DatabaseSettings, str], F],
        null: Callable[[str], F],
        require: Iterable[str],
    ) -> None:
        self._configuration = configuration
        self._build = build
        self._null = null
        self._lock = threading.RLock()
        self._built: dict[str, F] = {}  # in the order of building
        self._registered: dict[str, F] = {}
        self._overrides: dict[str, list[tuple[F, F]]] = {}
        self._closed = False
        missing = [self.missing(name) for name in several(require) if name not in self.names]
        if missing:
            raise NotConfiguredError("\n".join(missing))

    @property
    def names(self) -> tuple[str, ...]:
        """The names that are configured or registered, sorted."""
        return tuple(sorted({*self._configuration.databases, *self._registered}))

    def missing(self, name: str) -> str:
        """Return the sentence that says how to configure a database."""
        if not isinstance(name, str):
            raise TypeError(f"the name of a database is text, not {type(name).__name__}")
        return self._configuration.missing(name, self.names)

    def get(self, name: str) -> F:
        """Return the factory of a database; the null factory if it is not configured."""
        with self._lock:
            if name in self._overrides:
                return self._overrides[name][-1][0]
            if self._closed:
                raise ClosedError(f"The registry is closed; it gives no factory for {name!r}")
            for factories in (self._registered, self._built):
                if name in factories:
                    return factories[name]
            if name not in self._configuration.databases:
                return self._null(self.missing(name))
            factory = self._built[name] = self._make(name)
            return factory

    def reader(self, name: str) -> F:
        """Return the read-only factory of a database."""
        with self._lock:
            if name in self._overrides:
                return self._overrides[name][-1][1]
            factory = self.get(name)
            if self.is_missing(name):
                return factory
        reader = cast("F | None", getattr(factory, "reader", None))
        if reader is None:
            raise NotConfiguredError(f"The factory registered as {name!r} has no reader")
        return reader

    def engine(self, name: str) -> object:
        """Return the engine of a database: of its factory's half."""
        if self.is_missing(name):
            raise NotConfiguredError(self.missing(name))
        engine: object = getattr(self.get(name), "engine", None)
        if engine is None:
            raise NotConfiguredError(f"The factory given as {name!r} has no engine")
        return engine

    def is_missing(self, name: str) -> bool:
        """Say whether a name means the null factory."""
        return name not in self._overrides and name not in self.names

    def watched(self, names: Iterable[str] | None) -> tuple[str, ...]:
        """Return ``names``, or by default those of the factories built so far."""
        with self._lock:
            return tuple(self._built) if names is None else several(names)

    def register(self, name: str, factory: F) -> None:
        """Give a name to a factory made elsewhere; a name that is taken is a ``ValueError``."""
        _refuse_no_factory("register", factory)
        with self._lock:
            if self._closed:
                raise ClosedError(f"The registry is closed; it takes no factory for {name!r}")
            if name in self.names:
                raise ValueError(f"There is a database {name!r} already; override() replaces one")
            self._registered[name] = factory

    def override(self, name: str, factory: F, reader: F | None) -> AbstractContextManager[None]:
        """Replace a factory and its reader for the length of a block."""
        entry = (factory, factory if reader is None else reader)
        for each in entry:
            _refuse_no_factory("override", each)
        return self._overridden(name, entry)

    @contextmanager
    def _overridden(self, name: str, entry: tuple[F, F]) -> Generator[None]:
        with self._lock:
            self._overrides.setdefault(name, []).append(entry)
        try:
            yield
        finally:  # its own entry: overrides may end in another order than they began
            with self._lock:
                entries = self._overrides[name]
                del entries[next(i for i, other in enumerate(entries) if other is entry)]
                if not entries:
                    del self._overrides[name]

    def shut(self) -> list[tuple[str, F]]:
        """Give nothing out from now on, and return what was built, newest first."""
        with self._lock:
            self._closed = True
            built = [*reversed(self._built.items())]
            self._built.clear()
        return built

    def _make(self, name: str) -> F:
        settings = self._configuration.databases[name]
        kind = self._configuration.factories.get(name)
        try:
            if kind is not None:
                return cast("F", make_factory(kind, settings, name))
            return self._build(settings, name)
        except SettingsError as error:
            raise self._configuration.traced(name, error) from None


def _refuse_no_factory(what: str, given: object) -> None:
    # Types forbid it; the untyped caller is told here, and not by whoever opens a session later.
    if not makes_sessions(given):
        raise TypeError(f"{what} takes a session factory, not {type(given).__name__}")


def several(names: Iterable[str]) -> tuple[str, ...]:
    """Return the names; a text in place of several names is a slip, not a list of letters."""
    if isinstance(names, str):
        raise TypeError(f"expected several names, got one text; write [{names!r}]")
    return tuple(names)
