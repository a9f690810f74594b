"""Kinds of factories beyond ours: named by an entry point or a dotted path in the configuration."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Final, Protocol, cast

from sessionfactory.errors import Fault, SettingsError

if TYPE_CHECKING:
    from sessionfactory.config.settings import DatabaseSettings

GROUP: Final = "sessionfactory.factories"


class Kind(Protocol):
    """What an entry point or a dotted path leads to: it makes a factory from settings."""

    def __call__(self, settings: DatabaseSettings, *, name: str) -> object:
        """Return a ``SessionFactory`` for the database ``name``."""
        ...


def make_factory(kind: str, settings: DatabaseSettings, name: str) -> object:
    """Return what a kind makes of the settings.

    Raises:
        SettingsError: the kind cannot be loaded, or makes nothing.
    """
    factory = load_kind(kind)(settings, name=name)
    if factory is None:
        raise SettingsError([Fault("factory", f"{kind!r} made no session factory, but None")])
    return factory


def load_kind(kind: str) -> Kind:
    """Return the kind that ``kind`` names: an entry point, or ``package.module:attribute``.

    Raises:
        SettingsError: there is no such entry point, module or attribute, or it cannot be called.
    """
    try:
        found = _by_path(kind) if ":" in kind or "." in kind else _by_entry_point(kind)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise SettingsError([Fault("factory", f"{kind!r} cannot be loaded: {error}")]) from error
    if not callable(found):
        problem = f"{kind!r} cannot be called with (settings, name=…)"
        raise SettingsError([Fault("factory", problem)])
    return cast("Kind", found)


def _by_path(path: str) -> object:
    module, _, attribute = path.partition(":") if ":" in path else path.rpartition(".")
    found: object = import_module(module)
    for part in attribute.split("."):
        found = getattr(found, part)
    return found


def _by_entry_point(name: str) -> object:
    known = entry_points(group=GROUP)
    if name not in known.names:
        others = ", ".join(sorted(known.names)) or "none is installed"
        raise ValueError(f"no entry point of the group {GROUP!r} has this name ({others})")
    return known[name].load()
