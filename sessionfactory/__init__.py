"""A class-based session factory for SQLAlchemy, with an explicit interface.

Names are loaded on first use (PEP 562): ``import sessionfactory`` imports neither SQLAlchemy nor
attrs, because the pytest plugin of this package is loaded in every pytest run of every user.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sessionfactory._lazy import load

if TYPE_CHECKING:
    from sessionfactory._null import NullSessionFactory
    from sessionfactory._sync import SqlAlchemySessionFactory
    from sessionfactory.engine.errors import PoolExhaustedError
    from sessionfactory.environment import SettingsWarning
    from sessionfactory.errors import (
        ClosedError,
        Fault,
        NotConfiguredError,
        ReadOnlyError,
        SessionFactoryError,
        SettingsError,
    )
    from sessionfactory.interfaces import AsyncSessionFactory, SessionFactory
    from sessionfactory.masking import Secret
    from sessionfactory.registry import SessionFactoryRegistry
    from sessionfactory.settings import (
        DatabaseSettings,
        PoolSettings,
        SessionSettings,
        SqliteSettings,
    )
    from sessionfactory.status import Health, Holder, PoolStatus

__version__ = "0.1.0"

__all__ = [
    "AsyncSessionFactory",
    "ClosedError",
    "DatabaseSettings",
    "Fault",
    "Health",
    "Holder",
    "NotConfiguredError",
    "NullSessionFactory",
    "PoolExhaustedError",
    "PoolSettings",
    "PoolStatus",
    "ReadOnlyError",
    "Secret",
    "SessionFactory",
    "SessionFactoryError",
    "SessionFactoryRegistry",
    "SessionSettings",
    "SettingsError",
    "SettingsWarning",
    "SqlAlchemySessionFactory",
    "SqliteSettings",
]

_MODULES = {
    "_null": ("NullSessionFactory",),
    "_sync": ("SqlAlchemySessionFactory",),
    "engine.errors": ("PoolExhaustedError",),
    "errors": (
        "ClosedError",
        "Fault",
        "NotConfiguredError",
        "ReadOnlyError",
        "SessionFactoryError",
        "SettingsError",
    ),
    "interfaces": ("AsyncSessionFactory", "SessionFactory"),
    "masking": ("Secret",),
    "registry": ("SessionFactoryRegistry",),
    "settings": ("DatabaseSettings", "PoolSettings", "SessionSettings", "SqliteSettings"),
    "environment": ("SettingsWarning",),
    "status": ("Health", "Holder", "PoolStatus"),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}

if not TYPE_CHECKING:  # pragma: no branch - to type checkers, a missing name is an error

    def __getattr__(name: str) -> object:
        value = globals()[name] = load(__name__, _HOMES, name)  # so that this is asked once
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
