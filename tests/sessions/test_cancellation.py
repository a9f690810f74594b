"""Cancellations everywhere: no connection is lost, and no outcome is reported wrongly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import psycopg
import pytest

from tests.support.cancellation import MECHANISMS
from tests.support.weather import DRIVERS, Weather, over

if TYPE_CHECKING:
    from tests.support.cancellation import Mechanism

CANCELLATIONS: Final = 150
TICKS: Final = 120

pytestmark = pytest.mark.parametrize("weather", DRIVERS, indirect=True)
weather = pytest.fixture(over)


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_storm(weather: Weather, mechanism: Mechanism) -> None:
    """Cancelled at random, by each mechanism, scopes leave a whole pool and true books."""
    weather.storm(mechanism, CANCELLATIONS)


def test_each_tick(weather: Weather) -> None:
    """So do scopes that are cancelled after exactly so many ticks of the loop, once or twice."""
    weather.sweep(range(1, TICKS + 1))


def test_close_at_each_tick(weather: Weather) -> None:
    """A close that is cancelled at any tick leaves no connection, and can be called again."""
    weather.closes(range(1, TICKS + 1, 8))


def test_end_of_the_loop(weather: Weather) -> None:
    """A loop that ends at any tick ends what is under way; the books are true in the next."""
    old = tuple(map(int, psycopg.__version__.split(".")[:2])) < (3, 3)
    if old and weather.url.get_driver_name() == "psycopg":
        pytest.skip("psycopg before 3.3 waits in tasks that the loop cancels: some are uncertain")
    weather.ends(range(1, TICKS + 1, 8))
