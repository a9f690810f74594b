"""Test support that people install for its own sake: honest fakes, real servers, faults.

Nothing here imports pytest. Names are loaded on first use, so that the async fakes, and greenlet
with them, are asked for only by those who use them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sessionfactory._lazy import load

if TYPE_CHECKING:
    from sessionfactory.testing.cloning.cloning import CloningSessionFactory
    from sessionfactory.testing.cloning.cloning_async import AsyncCloningSessionFactory
    from sessionfactory.testing.conformance._requirements import CONFORMANCE_TABLE, ConformanceError
    from sessionfactory.testing.conformance.conformance import check_session_factory
    from sessionfactory.testing.conformance.conformance_async import check_async_session_factory
    from sessionfactory.testing.memory._image import IsolationError
    from sessionfactory.testing.memory.memory import InMemorySessionFactory
    from sessionfactory.testing.memory.memory_async import AsyncInMemorySessionFactory
    from sessionfactory.testing.proxy.fault_proxy import FaultProxy
    from sessionfactory.testing.recording._session_log import Statement
    from sessionfactory.testing.recording.query_budget import QueryBudgetError, max_queries
    from sessionfactory.testing.recording.recording import Recording, RecordingSessionFactory
    from sessionfactory.testing.recording.recording_async import AsyncRecordingSessionFactory
    from sessionfactory.testing.rollback._shared_connection import (
        ConcurrentUseError,
        ConnectionLostError,
        InterleavedTransactionsError,
        NotUndoneError,
        SessionLeftOpenError,
    )
    from sessionfactory.testing.rollback.capturing import capturing_callbacks
    from sessionfactory.testing.rollback.rollback import RollbackSessionFactory
    from sessionfactory.testing.rollback.rollback_async import AsyncRollbackSessionFactory
    from sessionfactory.testing.servers._process import (
        ServerError,
        ServerStartError,
        ServerUnavailableError,
    )
    from sessionfactory.testing.servers.mariadb import MariaDBServer
    from sessionfactory.testing.servers.postgres import PostgresServer

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
    "QueryBudgetError",
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
    "max_queries",
]

_HOMES = {
    "AsyncCloningSessionFactory": "cloning.cloning_async",
    "AsyncInMemorySessionFactory": "memory.memory_async",
    "AsyncRecordingSessionFactory": "recording.recording_async",
    "AsyncRollbackSessionFactory": "rollback.rollback_async",
    "CONFORMANCE_TABLE": "conformance._requirements",
    "CloningSessionFactory": "cloning.cloning",
    "ConcurrentUseError": "rollback._shared_connection",
    "ConformanceError": "conformance._requirements",
    "ConnectionLostError": "rollback._shared_connection",
    "FaultProxy": "proxy.fault_proxy",
    "InMemorySessionFactory": "memory.memory",
    "InterleavedTransactionsError": "rollback._shared_connection",
    "IsolationError": "memory._image",
    "MariaDBServer": "servers.mariadb",
    "NotUndoneError": "rollback._shared_connection",
    "PostgresServer": "servers.postgres",
    "QueryBudgetError": "recording.query_budget",
    "Recording": "recording.recording",
    "RecordingSessionFactory": "recording.recording",
    "RollbackSessionFactory": "rollback.rollback",
    "ServerError": "servers._process",
    "ServerStartError": "servers._process",
    "ServerUnavailableError": "servers._process",
    "SessionLeftOpenError": "rollback._shared_connection",
    "Statement": "recording._session_log",
    "capturing_callbacks": "rollback.capturing",
    "check_async_session_factory": "conformance.conformance_async",
    "check_session_factory": "conformance.conformance",
    "max_queries": "recording.query_budget",
}

if not TYPE_CHECKING:  # pragma: no branch - to type checkers, a missing name is an error

    def __getattr__(name: str) -> object:
        value = globals()[name] = load(__name__, _HOMES, name)  # so that it is loaded once
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
