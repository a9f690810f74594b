"""A class-based session factory for SQLAlchemy, with an explicit interface.

Names are loaded on first use (PEP 562): ``import sessionfactory`` imports neither SQLAlchemy nor
attrs, because the pytest plugin of this package is loaded in every pytest run of every user.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sessionfactory.config.masking import Secret
    from sessionfactory.config.rotating_secret import RotatingSecret
    from sessionfactory.config.settings import (
        DatabaseSettings,
        PoolSettings,
        SessionSettings,
        SqliteSettings,
    )
    from sessionfactory.drivers.error_codes import is_transient
    from sessionfactory.engine.views.options import IsolationLevel
    from sessionfactory.errors import (
        AfterCommitError,
        ClosedError,
        CommitOutcome,
        CommitRolledBackError,
        CommitUncertainError,
        EventLoopError,
        Fault,
        ForkedConnectionError,
        LockUnavailableError,
        NotConfiguredError,
        ReadOnlyError,
        SessionFactoryError,
        SettingsError,
        SettingsWarning,
        SharedSessionError,
        commit_outcome,
    )
    from sessionfactory.interfaces import AsyncSessionFactory, SessionFactory
    from sessionfactory.null import AsyncNullSessionFactory, NullSessionFactory
    from sessionfactory.pool.fair import FairPool
    from sessionfactory.pool.loop_bound import AsyncFairPool
    from sessionfactory.pool_errors import (
        ConnectTimeoutError,
        PoolDeadlockError,
        PoolExhaustedError,
    )
    from sessionfactory.registry.registry import SessionFactoryRegistry
    from sessionfactory.registry.registry_async import AsyncSessionFactoryRegistry
    from sessionfactory.sessions.factory import SqlAlchemySessionFactory
    from sessionfactory.sessions.factory_async import AsyncSqlAlchemySessionFactory
    from sessionfactory.status import Health, HealthState, Holder, PoolStatus
    from sessionfactory.transactions.advisory_lock import advisory_lock
    from sessionfactory.transactions.after_commit import on_commit
    from sessionfactory.transactions.options import with_options
    from sessionfactory.transactions.retry import run_in_transaction
    from sessionfactory.transactions.retry_async import (
        run_in_transaction_async,
        run_sync_in_transaction,
    )
    from sessionfactory.transactions.verification.marker import marker_table
    from sessionfactory.transactions.verification.watch import Verification

__version__ = "0.1.0"

__all__ = [
    "AfterCommitError",
    "AsyncFairPool",
    "AsyncNullSessionFactory",
    "AsyncSessionFactory",
    "AsyncSessionFactoryRegistry",
    "AsyncSqlAlchemySessionFactory",
    "ClosedError",
    "CommitOutcome",
    "CommitRolledBackError",
    "CommitUncertainError",
    "ConnectTimeoutError",
    "DatabaseSettings",
    "EventLoopError",
    "FairPool",
    "Fault",
    "ForkedConnectionError",
    "Health",
    "HealthState",
    "Holder",
    "IsolationLevel",
    "LockUnavailableError",
    "NotConfiguredError",
    "NullSessionFactory",
    "PoolDeadlockError",
    "PoolExhaustedError",
    "PoolSettings",
    "PoolStatus",
    "ReadOnlyError",
    "RotatingSecret",
    "Secret",
    "SessionFactory",
    "SessionFactoryError",
    "SessionFactoryRegistry",
    "SessionSettings",
    "SettingsError",
    "SettingsWarning",
    "SharedSessionError",
    "SqlAlchemySessionFactory",
    "SqliteSettings",
    "Verification",
    "advisory_lock",
    "commit_outcome",
    "is_transient",
    "marker_table",
    "on_commit",
    "run_in_transaction",
    "run_in_transaction_async",
    "run_sync_in_transaction",
    "with_options",
]

_MODULES = {
    "sessions.factory_async": ("AsyncSqlAlchemySessionFactory",),
    "null": ("AsyncNullSessionFactory", "NullSessionFactory"),
    "sessions.factory": ("SqlAlchemySessionFactory",),
    "registry.registry_async": ("AsyncSessionFactoryRegistry",),
    "pool_errors": ("ConnectTimeoutError", "PoolDeadlockError", "PoolExhaustedError"),
    "errors": (
        "AfterCommitError",
        "ClosedError",
        "CommitOutcome",
        "CommitRolledBackError",
        "CommitUncertainError",
        "EventLoopError",
        "Fault",
        "ForkedConnectionError",
        "LockUnavailableError",
        "NotConfiguredError",
        "ReadOnlyError",
        "SessionFactoryError",
        "SettingsError",
        "SettingsWarning",
        "SharedSessionError",
        "commit_outcome",
    ),
    "interfaces": ("AsyncSessionFactory", "SessionFactory"),
    "config.masking": ("Secret",),
    "config.rotating_secret": ("RotatingSecret",),
    "registry.registry": ("SessionFactoryRegistry",),
    "config.settings": ("DatabaseSettings", "PoolSettings", "SessionSettings", "SqliteSettings"),
    "status": ("Health", "HealthState", "Holder", "PoolStatus"),
    "pool.fair": ("FairPool",),
    "pool.loop_bound": ("AsyncFairPool",),
    "transactions.advisory_lock": ("advisory_lock",),
    "transactions.after_commit": ("on_commit",),
    "engine.views.options": ("IsolationLevel",),
    "transactions.verification.marker": ("marker_table",),
    "transactions.verification.watch": ("Verification",),
    "transactions.retry": ("run_in_transaction",),
    "transactions.retry_async": ("run_in_transaction_async", "run_sync_in_transaction"),
    "drivers.error_codes": ("is_transient",),
    "transactions.options": ("with_options",),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}

_REMOVED = {
    "hand_over": "is no longer there, as sessions have no owner any more: inject the factory, and"
    " open one session per thread or task"
}

if not TYPE_CHECKING:  # pragma: no branch - to type checkers, a missing name is an error

    def __getattr__(name: str) -> object:
        from sessionfactory._lazy import load  # noqa: PLC0415 - most pytest runs need no name

        if name in _REMOVED:
            raise ImportError(f"sessionfactory.{name} {_REMOVED[name]}")
        value = globals()[name] = load(__name__, _HOMES, name)  # so that this runs once a name
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
