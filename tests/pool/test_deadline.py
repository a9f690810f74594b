"""``pool.timeout`` is one deadline: for waiting, for connecting, and for checking."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.deadlines import DRIVERS, LONG, Faults, faults

if TYPE_CHECKING:
    from collections.abc import Generator

TIMEOUT = 0.15


@pytest.fixture(scope="module", params=DRIVERS)
def behind(request: pytest.FixtureRequest) -> Generator[Faults]:
    """A server of each driver, behind a proxy."""
    with faults(request.param, request, TIMEOUT, slack=LONG / 2, recovery=LONG) as made:
        yield made


def test_black_hole(behind: Faults) -> None:
    """Who connects to a server that says nothing is back in time; then the factory recovers."""
    behind.silent(behind.proxy.black_hole)


def test_deaf(behind: Faults) -> None:
    """A connect to a server that does not accept is bounded as well."""
    behind.silent(behind.proxy.deaf)


def test_silent_when_pinged(behind: Faults) -> None:
    """A ping, and the connection that takes the place of what did not answer, share the time."""
    behind.silent_when_pinged()


def test_refusal(behind: Faults) -> None:
    """Without a listener, the driver's own error is raised."""
    behind.refused()


def test_exhaustion(behind: Faults) -> None:
    """Where every connection is out, the wait ends in time."""
    behind.exhausted()


def test_name_not_found(behind: Faults, monkeypatch: pytest.MonkeyPatch) -> None:
    """A resolver that does not respond delays no other caller."""
    if behind.url.get_driver_name() == "psycopg2":
        pytest.skip("libpq looks names up itself, where nothing can be put in the way")
    behind.name_not_found(monkeypatch)


def test_password_not_given(behind: Faults) -> None:
    """Nor does a function that is asked for the password."""
    behind.password_not_given()


def test_held_up_listener(behind: Faults) -> None:
    """A listener that waits for ever is cut off, and the lock of the first connection with it."""
    behind.held_up_listener()
