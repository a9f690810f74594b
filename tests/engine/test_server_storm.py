"""Whatever happens to a factory and its server, its books balance. The long form is in ``soak``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.server_storms import TaskStorm, ThreadStorm

if TYPE_CHECKING:
    from sessionfactory.testing import PostgresServer

ACTIONS = 400


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_threads(driver: str, own_postgres: PostgresServer) -> None:
    """Threads on a server that kills and restarts lose no connection, and share none."""
    storm = ThreadStorm(own_postgres, driver, seed=1, actions=ACTIONS, restarts=1)
    storm.rage()
    assert {"commit", "kill", "invalidate", "drop", "restart", "close"} <= set(storm.done)


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_tasks(driver: str, own_postgres: PostgresServer) -> None:
    """Nor do tasks, which may be cancelled as well."""
    storm = TaskStorm(own_postgres, driver, seed=1, actions=ACTIONS, restarts=1)
    storm.rage()
    assert {"commit", "kill", "invalidate", "cancel", "restart", "close"} <= set(storm.done)
