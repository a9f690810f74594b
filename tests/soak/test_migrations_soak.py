"""Eight workers that start at once migrate an empty database once; ``make test`` starts four."""

from __future__ import annotations

import pytest

from tests.ext import test_alembic_locks
from tests.ext.test_alembic_locks import (
    empty_url,
    project,
    test_workers_that_start_at_once_run_a_migration_once,
)

__all__ = ["empty_url", "project", "test_workers_that_start_at_once_run_a_migration_once"]


@pytest.fixture(autouse=True)
def _eight_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start as many workers as the promise names."""
    monkeypatch.setattr(test_alembic_locks, "WORKERS", 8)
