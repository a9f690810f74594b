"""The long form of the storm over factories on a real PostgreSQL."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.seeds import seeds
from tests.support.server_storms import TaskStorm, ThreadStorm

if TYPE_CHECKING:
    from sessionfactory.testing import PostgresServer

ACTIONS = 10_000
RESTARTS = 10


@pytest.mark.parametrize("seed", seeds(2))
@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_threads(driver: str, seed: int, own_postgres: PostgresServer) -> None:
    """Ten thousand random actions of threads leave nothing behind."""
    ThreadStorm(own_postgres, driver, seed, ACTIONS, RESTARTS).rage()


@pytest.mark.parametrize("seed", seeds(2))
@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_tasks(driver: str, seed: int, own_postgres: PostgresServer) -> None:
    """Nor do those of tasks, many of which are cancelled."""
    TaskStorm(own_postgres, driver, seed, ACTIONS, RESTARTS).rage()
