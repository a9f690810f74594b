"""Whatever happens to a factory and its server, its counters balance.

The long form is in ``soak``. What a storm meets depends on timing; the storm itself asserts what
holds in any order of events.
"""

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
    assert storm.done["restart"] == 1


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_tasks(driver: str, own_postgres: PostgresServer) -> None:
    """Tasks, which may be cancelled as well, lose no connection either."""
    TaskStorm(own_postgres, driver, seed=1, actions=ACTIONS, restarts=1).rage()
