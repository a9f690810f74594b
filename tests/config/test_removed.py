"""What is no longer there is refused, with a sentence that says what to use instead."""

from __future__ import annotations

import importlib
from typing import Any

import pytest

import sessionfactory
from sessionfactory import (
    DatabaseSettings,
    PoolSettings,
    SessionFactoryRegistry,
    SessionSettings,
    SettingsError,
)

OWNER = "session.owner"
SETTINGS: dict[str, Any] = {"owner": "strict"}


def test_an_owner_in_code() -> None:
    """A keyword that has gone is a fault, and no puzzle of Python's."""
    with pytest.raises(SettingsError, match="owner: no longer a setting: inject the factory"):
        SessionSettings(**SETTINGS)


def test_an_owner_in_a_table() -> None:
    """A table may not name it either; its path is told."""
    with pytest.raises(SettingsError, match=rf"{OWNER} .*: no longer a setting"):
        SessionFactoryRegistry.from_mapping(
            {"default": {"url": "sqlite://", "session": {"owner": "concurrent"}}}
        )


def test_an_owner_in_the_environment() -> None:
    """A variable that was once read is not ignored without a word."""
    with pytest.raises(SettingsError, match=rf"{OWNER} .*: no longer a setting"):
        SessionFactoryRegistry.from_env(
            {"DATABASE_URL": "sqlite://", "DATABASE_SESSION_OWNER": "strict"}
        )


@pytest.mark.parametrize("kind", ["queue", " QUEUE "])
def test_the_kind_queue(kind: str) -> None:
    """The pool of SQLAlchemy is SQLAlchemy's to give."""
    table: dict[str, Any] = {"kind": kind}
    with pytest.raises(SettingsError, match=r"use 'fair'.*or SQLAlchemy's own sessionmaker"):
        PoolSettings(**table)
    with pytest.raises(SettingsError, match=r"pool\.kind .*: 'queue' is no longer a kind of pool"):
        SessionFactoryRegistry.from_mapping({"default": {"url": "sqlite://", "pool": table}})
    assert DatabaseSettings("sqlite://").pool.kind == "fair"


def test_hand_over() -> None:
    """The import fails with the reason, and ``__all__`` does not name it."""
    with pytest.raises(ImportError, match="sessions have no owner any more: inject the factory"):
        importlib.import_module("sessionfactory").hand_over  # noqa: B018
    assert "hand_over" not in dir(sessionfactory)
