# pyright: reportUnnecessaryTypeIgnoreComment=true
"""Errors and values as a type checker sees them; checked by mypy and pyright, never run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, assert_type

from sessionfactory import (
    ClosedError,
    Fault,
    Health,
    Holder,
    NotConfiguredError,
    PoolExhaustedError,
    PoolStatus,
    ReadOnlyError,
    SessionFactoryError,
    SettingsError,
    SettingsWarning,
)

if TYPE_CHECKING:
    from sqlalchemy.exc import TimeoutError as SqlAlchemyTimeoutError


def tree(
    closed: ClosedError,
    missing: NotConfiguredError,
    read_only: ReadOnlyError,
    settings: SettingsError,
    exhausted: PoolExhaustedError,
) -> SqlAlchemyTimeoutError:
    """Every error is ours, and what an existing handler catches."""
    ours: list[SessionFactoryError] = [closed, missing, read_only, settings, exhausted]
    runtime: list[RuntimeError] = [closed, missing]
    value: ValueError = settings
    ours.clear()
    runtime.clear()
    value.with_traceback(None)
    return exhausted


def warning(found: SettingsWarning) -> UserWarning:
    """A near-miss is a warning that filters on ``UserWarning`` see."""
    return found


def parts(settings: SettingsError, exhausted: PoolExhaustedError) -> None:
    """What the errors carry."""
    assert_type(settings.faults, tuple[Fault, ...])
    assert_type(exhausted.holders, tuple[Holder, ...])
    (fault,) = SettingsError([Fault("pool.size", "expected 1 or more")]).faults
    assert_type(fault.path, str)
    assert_type(fault.problem, str)
    assert_type(fault.origin, str | None)
    Fault("pool.size", "expected 1 or more", "DATABASE_POOL_SIZE")
    Fault(path="", problem="", origin=None)


def values(health: Health, status: PoolStatus, holder: Holder) -> None:
    """What a ping and a pool say."""
    assert_type(
        health.state,
        Literal["ok", "saturated", "slow", "unreachable", "refused", "closed", "unconfigured"],
    )
    assert_type(health.latency, float | None)
    assert_type(health.detail, str)
    assert_type(health.ok, bool)
    assert_type(status.limit, int | None)
    assert_type(status.size, int)
    assert_type(status.in_use, int)
    assert_type(status.idle, int)
    assert_type(status.overflow, int)
    assert_type(status.waiting, int)
    assert_type(status.holders, tuple[Holder, ...])
    assert_type(holder.where, str)
    assert_type(holder.owner, str)
    assert_type(holder.held, float)
    Health("ok")
    Health("ok", 0.1, "in memory")
    Holder("app.py:1 in main", "thread MainThread", 0.5)
    PoolStatus(limit=None, size=0, in_use=0, idle=0, overflow=0, waiting=0)


def refused(health: Health, status: PoolStatus, fault: Fault) -> None:
    """What the values do not take, and that they are frozen."""
    Health("fine")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    SettingsError("pool.size")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    health.ok = True  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    health.state = "ok"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    status.size = 1  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    fault.path = ""  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
