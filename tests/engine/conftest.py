"""Fixtures of the engine's tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.engine.sqlite_pools import Databases

if TYPE_CHECKING:
    from collections.abc import Generator


@pytest.fixture
def databases() -> Generator[Databases]:
    """What opens connections, all of which are closed at the end."""
    made = Databases()
    yield made
    made.close()
