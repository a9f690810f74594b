"""Test support that people install for its own sake: honest fakes, real servers, faults.

Nothing here imports pytest. Names are loaded on first use, so that the async fakes, and greenlet
with them, are asked for only by those who use them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sessionfactory._lazy import load

if TYPE_CHECKING:
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
    from sessionfactory.testing.capturing import capturing_callbacks
    from sessionfactory.testing.cloning import CloningSessionFactory
    from sessionfactory.testing.cloning_async import AsyncCloningSessionFactory
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
    "AsyncCloningSessionFactory",
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
    "capturing_callbacks",
    "check_async_session_factory",
    "check_session_factory",
]

_HOMES = {
    "AsyncCloningSessionFactory": "cloning_async",
    "AsyncInMemorySessionFactory": "async_memory",
    "AsyncRecordingSessionFactory": "recording_async",
    "AsyncRollbackSessionFactory": "rollback_async",
    "CONFORMANCE_TABLE": "_promises",
    "CloningSessionFactory": "cloning",
    "ConcurrentUseError": "_one_connection",
    "ConformanceError": "_promises",
    "ConnectionLostError": "_one_connection",
    "FaultProxy": "proxy",
    "InMemorySessionFactory": "memory",
    "InterleavedTransactionsError": "_one_connection",
    "IsolationError": "_image",
    "MariaDBServer": "mariadb",
    "NotUndoneError": "_one_connection",
    "PostgresServer": "postgres",
    "Recording": "recording",
    "RecordingSessionFactory": "recording",
    "RollbackSessionFactory": "rollback",
    "ServerError": "_process",
    "ServerStartError": "_process",
    "ServerUnavailableError": "_process",
    "SessionLeftOpenError": "_one_connection",
    "Statement": "_session_log",
    "capturing_callbacks": "capturing",
    "check_async_session_factory": "conformance_async",
    "check_session_factory": "conformance",
}

if not TYPE_CHECKING:  # pragma: no branch - to type checkers, a missing name is an error

    def __getattr__(name: str) -> object:
        value = globals()[name] = load(__name__, _HOMES, name)  # so that this is asked once
        return value
