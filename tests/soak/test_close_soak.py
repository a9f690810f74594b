"""``close`` under load, again and again: it ends in time, and nothing stays on the server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from tests.support.drained import DRIVERS, Load, server_of, until_none

if TYPE_CHECKING:
    from tests.support.drained import Server

TIMES: Final = 20
TIMEOUT: Final = 0.5

server = pytest.fixture(server_of)


@pytest.mark.parametrize("driver", DRIVERS)
def test_under_load(driver: str, server: Server) -> None:
    """It returns half a second after its deadline at the latest."""
    late: list[float] = []
    committed = 0
    for _ in range(TIMES):
        load = Load(server, driver)
        load.close(TIMEOUT)
        until_none(server)
        committed += load.committed
        late.append(load.seconds - TIMEOUT)
    assert server.execute("SELECT count(*) FROM drained") == str(committed)
    assert max(late) <= 0.5, late
