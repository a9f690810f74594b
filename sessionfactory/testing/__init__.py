"""Test support that people install for its own sake: real servers, and faults before them.

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
from sessionfactory.testing.proxy import FaultProxy

__all__ = [
    "FaultProxy",
    "MariaDBServer",
    "PostgresServer",
    "ServerError",
    "ServerStartError",
    "ServerUnavailableError",
]
