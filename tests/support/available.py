"""What the tests do about a server that is not available."""

from __future__ import annotations

import os
from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, TypeVar

import pytest

from sessionfactory.testing.servers._process import ServerUnavailableError
from sessionfactory.testing.servers._server import ThrowawayServer

if TYPE_CHECKING:
    from collections.abc import Generator

S = TypeVar("S", bound=ThrowawayServer)

FETCHED: Final = frozenset({"mariadb", "pgbouncer"})
USES_FETCHED: Final = os.environ.get("SESSIONFACTORY_FETCHED") != "no"
"""Whether tests use the servers that ``make test`` fetches; ``FETCH=no`` leaves them out."""
LOCK_TIMEOUT: Final = 10
"""Seconds that a statement of a test waits for a lock, so that none waits for its own for ever."""
POSTGRES_LIMITS: Final = MappingProxyType({"lock_timeout": f"{LOCK_TIMEOUT}s"})
MARIADB_LIMITS: Final = MappingProxyType(
    {"innodb_lock_wait_timeout": LOCK_TIMEOUT, "lock_wait_timeout": LOCK_TIMEOUT}
)
"""Settings of servers on which tests work with several connections."""


@contextmanager
def running_or_skipped(server: S) -> Generator[S]:
    """Run a server. One that is not available is a skip with its reason, and in CI a failure.

    A fixture or test that calls this opens nothing before it: a skip would leave that open.
    """
    if server.kind in FETCHED and not USES_FETCHED:
        pytest.skip(f"no fetched {server.kind}: FETCH=no")
    try:
        server.start()
    except ServerUnavailableError as missing:
        if USES_FETCHED and os.environ.get("CI", "").lower() not in {"", "0", "false"}:
            pytest.fail(f"CI must have every database: {missing}")
        pytest.skip(f"no {server.kind}: {missing}")
    with server:
        yield server
