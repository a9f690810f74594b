"""Ten thousand queries through PgBouncer in transaction mode, by each driver."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from tests.support.available import running_or_skipped
from tests.support.pgbouncer import PgBouncer
from tests.support.pooled import DRIVERS, values

if TYPE_CHECKING:
    from sessionfactory.testing import PostgresServer

QUERIES: Final = 10_000


@pytest.mark.parametrize("driver", DRIVERS)
def test_every_value_is_right(driver: str, postgres_server: PostgresServer) -> None:
    """Not one value is wrong, and not one query fails."""
    with running_or_skipped(PgBouncer(postgres_server)) as pooler:
        told = values(pooler.url_for(driver.removesuffix("_async")), driver, QUERIES)
    assert told == {"right": QUERIES}
