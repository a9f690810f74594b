"""What the tests do about a server that cannot be had."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import pytest

from sessionfactory.testing.servers._process import ServerUnavailableError
from sessionfactory.testing.servers._server import ThrowawayServer

if TYPE_CHECKING:
    from collections.abc import Generator

S = TypeVar("S", bound=ThrowawayServer)


@contextmanager
def running_or_skipped(server: S) -> Generator[S]:
    """Run a server. One that cannot be had is a skip with its reason, in CI a failure."""
    try:
        server.start()
    except ServerUnavailableError as missing:
        if os.environ.get("CI", "").lower() not in {"", "0", "false"}:
            pytest.fail(f"CI must have every database: {missing}")
        pytest.skip(str(missing))
    with server:
        yield server
