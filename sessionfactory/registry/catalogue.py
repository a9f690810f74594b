"""Which factory a name means; what both registries share, for it never waits."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Generic, TypeVar, cast

import attrs

from sessionfactory.errors import ClosedError, NotConfiguredError, SettingsError
from sessionfactory.interfaces import half_of, makes_sessions

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable
    from contextlib import AbstractContextManager

    from sessionfactory.config.configuration import Configuration
    from sessionfactory.config.settings import DatabaseSettings
    from sessionfactory.errors import Fault
    from sessionfactory.interfaces import Half

F = TypeVar("F")


@attrs.frozen
class Makers(Generic[F]):
    """How one half makes what a catalogue holds."""

    half: Half
    build: Callable[[DatabaseSettings, str], F]
    """Makes the factory of a database."""
    null: Callable[[str], F]
    """Makes the factory of a database that is not configured, from the reason."""
    lend: Callable[[F], F]
    """Takes from a factory what only its owner may do."""


class Catalogue(Generic[F]):
    """Finds factories by name: overridden, registered, or built on first demand. Thread-safe.

    Args:
        configuration: the databases that are configured.
        makers: how the factories of this half are made.
        require: names that must be configured and usable: their factories are made at once, which
            checks the driver, but connects to nothing.

    Raises:
        NotConfiguredError: databases of ``require`` are missing; the message names all of them.
        SettingsError: databases of ``require`` cannot be used; all faults of all of them.
    """

    def __init__(
        self, configuration: Configuration, makers: Makers[F], require: Iterable[str]
    ) -> None:
        self.configuration = configuration
        self._makers = makers
        self._lock = threading.RLock()
        self._built: dict[str, F] = {}  # in the order of building
        self._lent: dict[str, F] = {}  # what is handed out, of those built and registered
        self._registered: dict[str, F] = {}
        self._overrides: dict[str, list[tuple[F, F]]] = {}
        self._closed = False
        required = several(require)
        missing = [self.missing(name) for name in required if name not in self.names]
        if missing:
            raise NotConfiguredError("\n".join(missing))
        faults = [fault for name in required for fault in self._faults_of(name)]
        if faults:
            raise SettingsError(faults)

    @property
    def names(self) -> tuple[str, ...]:
        """The names that are configured or registered, sorted."""
        return tuple(sorted({*self.configuration.databases, *self._registered}))

    def missing(self, name: str) -> str:
        """Return the sentence that says how to configure a database."""
        if not isinstance(name, str):
            raise TypeError(f"the name of a database is text, not {type(name).__name__}")
        return self.configuration.missing(name, self.names)

    def settings(self, name: str) -> DatabaseSettings:
        """Return the settings of a database that is configured."""
        if name not in self.configuration.databases:
            raise NotConfiguredError(
                f"The factory registered as {name!r} has no settings here"
                if name in self._registered
                else self.missing(name)
            )
        return self.configuration.databases[name]

    def get(self, name: str) -> F:
        """Return the factory of a database; the null factory if it is not configured."""
        with self._lock:
            if name in self._overrides:
                return self._overrides[name][-1][0]
            if self._closed:
                raise ClosedError(f"The registry is closed; it gives no factory for {name!r}")
            if name in self._lent:
                return self._lent[name]
            if name not in self.configuration.databases:
                return self._makers.null(self.missing(name))
            factory = self._built[name] = self._make(name)
            lent = self._lent[name] = self._makers.lend(factory)
            return lent

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

    def member(self, name: str, what: str) -> object:
        """Return a member of a database's factory that the interface lacks: the engine."""
        if self.is_missing(name):
            raise NotConfiguredError(self.missing(name))
        found: object = getattr(self.get(name), what, None)
        if found is None:
            raise NotConfiguredError(f"The factory given as {name!r} has no {what}")
        return found

    def is_missing(self, name: str) -> bool:
        """Return whether a name means the null factory."""
        return name not in self._overrides and name not in self.names

    def watched(self, names: Iterable[str] | None) -> tuple[str, ...]:
        """Return ``names``, or by default those of the factories built so far."""
        with self._lock:
            return tuple(self._built) if names is None else several(names)

    def register(self, name: str, factory: F) -> None:
        """Give a name to a factory made elsewhere; a name that is taken is a ``ValueError``."""
        self._refuse("register", factory)
        with self._lock:
            if self._closed:
                raise ClosedError(f"The registry is closed; it takes no factory for {name!r}")
            if name in self.names:
                raise ValueError(f"There is a database {name!r} already; override() replaces one")
            self._registered[name] = factory
            self._lent[name] = self._makers.lend(factory)

    def override(self, name: str, factory: F, reader: F | None) -> AbstractContextManager[None]:
        """Replace a factory and its reader for the length of a block."""
        given = (factory, factory if reader is None else reader)
        for each in given:
            self._refuse("override", each)
        lent, reading = (self._makers.lend(each) for each in given)
        return self._overridden(name, (lent, reading))

    def overriding(self) -> tuple[F, ...]:
        """Return the factories that replace others at present."""
        with self._lock:
            return tuple(entries[-1][0] for entries in self._overrides.values())

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
        settings = self.configuration.databases[name]
        kind = self.configuration.factories.get(name)
        try:
            if kind is None:
                return self._makers.build(settings, name)
            from sessionfactory.registry.custom_factories import make_factory  # noqa: PLC0415 - rare

            return cast("F", make_factory(kind, settings, name))
        except SettingsError as error:
            raise self.configuration.traced(name, error) from None

    def _faults_of(self, name: str) -> Iterable[Fault]:
        try:
            self.get(name)
        except SettingsError as error:
            return error.faults
        return ()

    def _refuse(self, what: str, given: object) -> None:
        # Types forbid it; an untyped caller learns it here, and not when a session is opened.
        if not makes_sessions(given):
            raise TypeError(f"{what} takes a session factory, not {type(given).__name__}")
        half = half_of(given)
        if half is not None and half != self._makers.half:
            raise TypeError(
                f"{what} takes a session factory of the {self._makers.half} half, and"
                f" {type(given).__name__} is of the {half} half"
            )


def several(names: Iterable[str]) -> tuple[str, ...]:
    """Return the names; a text in place of several names is a slip, not a list of letters."""
    if isinstance(names, str):
        raise TypeError(f"expected several names, got one text; write [{names!r}]")
    return tuple(names)
