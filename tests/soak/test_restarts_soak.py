"""Restarts under load, again and again, and five quiet seconds after each."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

import pytest

from sessionfactory import DatabaseSettings
from tests.support.restarts import DEATHS, DRIVERS, POOL, SYNC, Death, UnderLoad, die

if TYPE_CHECKING:
    from sessionfactory.testing import PostgresServer

TIMES: Final = 5


@pytest.mark.parametrize("death", DEATHS)
@pytest.mark.parametrize("driver", DRIVERS)
def test_under_load(driver: str, death: Death, own_postgres: PostgresServer) -> None:
    """No error of a dead connection is seen one second after the server is back."""
    settings = DatabaseSettings(own_postgres.url_for(driver.removesuffix("_async")), pool=POOL)
    for _ in range(TIMES):
        load = UnderLoad(settings, is_async=driver not in SYNC, seconds=5)
        load.survive(partial(die, own_postgres, death))
        assert load.errors or death == "terminated"  # it may find every connection at rest
        assert load.late(1.0) == []
