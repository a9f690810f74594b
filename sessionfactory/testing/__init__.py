"""Test support that people install for its own sake: honest fakes, real servers, faults.

Nothing here imports pytest.
"""

from __future__ import annotations

from sessionfactory.testing._image import IsolationError
from sessionfactory.testing._one_connection import (
    ConcurrentUseError,
    ConnectionLostError,
    InterleavedTransactionsError,
    NotUndoneError,
    SessionLeftOpenError,
)
from sessionfactory.testing._process import (
    ServerError,
    ServerStartError,
    ServerUnavailableError,
)
from sessionfactory.testing._promises import CONFORMANCE_TABLE, ConformanceError
from sessionfactory.testing._session_log import Statement
from sessionfactory.testing.async_memory import AsyncInMemorySessionFactory
from sessionfactory.testing.cloning import CloningSessionFactory
from sessionfactory.testing.conformance import check_session_factory
from sessionfactory.testing.conformance_async import check_async_session_factory
from sessionfactory.testing.mariadb import MariaDBServer
from sessionfactory.testing.memory import InMemorySessionFactory
from sessionfactory.testing.postgres import PostgresServer
from sessionfactory.testing.proxy import FaultProxy
from sessionfactory.testing.recording import Recording, RecordingSessionFactory
from sessionfactory.testing.recording_async import AsyncRecordingSessionFactory
from sessionfactory.testing.rollback import RollbackSessionFactory
from sessionfactory.testing.rollback_async import AsyncRollbackSessionFactory

__all__ = [
    "CONFORMANCE_TABLE",
    "AsyncInMemorySessionFactory",
    "AsyncRecordingSessionFactory",
    "AsyncRollbackSessionFactory",
    "CloningSessionFactory",
    "ConcurrentUseError",
    "ConformanceError",
    "ConnectionLostError",
    "FaultProxy",
    "InMemorySessionFactory",
    "InterleavedTransactionsError",
    "IsolationError",
    "MariaDBServer",
    "NotUndoneError",
    "PostgresServer",
    "Recording",
    "RecordingSessionFactory",
    "RollbackSessionFactory",
    "ServerError",
    "ServerStartError",
    "ServerUnavailableError",
    "SessionLeftOpenError",
    "Statement",
    "check_async_session_factory",
    "check_session_factory",
]
