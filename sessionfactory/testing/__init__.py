"""Test support that people install for its own sake: throwaway real servers.

Nothing here imports pytest.
"""

from __future__ import annotations

from sessionfactory.testing._process import (
    ServerError,
    ServerStartError,
    ServerUnavailableError,
)
from sessionfactory.testing.mariadb import MariaDBServer
from sessionfactory.testing.postgres import PostgresServer

__all__ = [
    "MariaDBServer",
    "PostgresServer",
    "ServerError",
    "ServerStartError",
    "ServerUnavailableError",
]
