"""The deadline of a checkout, to a tenth of a second."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.deadlines import DRIVERS, Faults, faults

if TYPE_CHECKING:
    from collections.abc import Generator

TIMES = 10
TIMEOUT = 0.5
SLACK = 0.1
PING = 1.0


@pytest.fixture(scope="module", params=DRIVERS)
def behind(request: pytest.FixtureRequest) -> Generator[Faults]:
    """A server of each driver, behind a proxy."""
    with faults(request.param, request, TIMEOUT, SLACK, recovery=PING) as made:
        yield made


def test_black_hole(behind: Faults) -> None:
    """Who connects to a server that says nothing is back in time, and all is well afterwards."""
    for _ in range(TIMES):
        behind.silent(behind.proxy.black_hole)


def test_deaf(behind: Faults) -> None:
    """A connect to a server that does not accept is bounded as well."""
    for _ in range(TIMES):
        behind.silent(behind.proxy.deaf)


def test_silent_when_pinged(behind: Faults) -> None:
    """A ping, and the connection that takes the place of what did not answer, share the time."""
    for _ in range(TIMES):
        behind.silent_when_pinged()


def test_refusal(behind: Faults) -> None:
    """Without a listener, the driver's own error is raised."""
    for _ in range(TIMES):
        behind.refused()


def test_exhaustion(behind: Faults) -> None:
    """Where every connection is out, the wait ends in time."""
    for _ in range(TIMES):
        behind.exhausted()


def test_name_not_found(behind: Faults, monkeypatch: pytest.MonkeyPatch) -> None:
    """A resolver that does not respond delays no other caller."""
    if behind.url.get_driver_name() == "psycopg2":
        pytest.skip("libpq looks names up itself, where nothing can be put in the way")
    for _ in range(TIMES):
        behind.name_not_found(monkeypatch)


def test_held_up_listener(behind: Faults) -> None:
    """A listener that waits for ever is cut off within a second, and others can connect."""
    behind.recovery = 2 * PING
    behind.held_up_listener()
