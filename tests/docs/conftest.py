"""What the examples of the pages may leave open."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import event
from sqlalchemy.pool import Pool

if TYPE_CHECKING:
    from collections.abc import Generator


@pytest.fixture
def left_open() -> Generator[None]:
    """Close what the examples' plain engines leave open, of which Python 3.13 warns."""
    opened: list[object] = []

    def note(connection: object, _record: object) -> None:
        opened.append(connection)

    event.listen(Pool, "connect", note)
    yield
    event.remove(Pool, "connect", note)
    for connection in opened:
        if isinstance(connection, sqlite3.Connection):
            connection.close()
