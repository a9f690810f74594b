"""Whatever happens to a fair pool, and when, its counters balance. The long form is in ``soak``.

What a storm meets depends on timing, so that nothing is asserted about it here: the storm itself
asserts what holds in any order of events.
"""

from __future__ import annotations

import pytest

from tests.support.storms import Storm

ACTIONS = 500


@pytest.mark.parametrize("seed", range(2))
def test_storm_of_threads(seed: int) -> None:
    """Threads that time out, invalidate, drop, detach and dispose lose no connection."""
    storm = Storm(seed, ACTIONS)
    storm.in_threads()
    assert storm.done.total() - storm.done["dispose"] == ACTIONS


@pytest.mark.parametrize("seed", range(2))
def test_storm_of_tasks(seed: int) -> None:
    """Tasks, which may be cancelled as well, lose no connection either."""
    Storm(seed, ACTIONS).in_tasks()
