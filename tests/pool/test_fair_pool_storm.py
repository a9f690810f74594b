"""Whatever happens to a fair pool, and when, its books balance. The long form is in ``soak``."""

from __future__ import annotations

import pytest

from tests.support.storms import Storm

ACTIONS = 500


@pytest.mark.parametrize("seed", range(2))
def test_storm_of_threads(seed: int) -> None:
    """Threads that time out, invalidate, drop, detach and dispose lose nothing."""
    storm = Storm(seed, ACTIONS)
    storm.in_threads()
    assert {"TimeoutError", "ConnectionRefusedError", "dispose", "cycle"} <= set(storm.done)


@pytest.mark.parametrize("seed", range(2))
def test_storm_of_tasks(seed: int) -> None:
    """Neither do tasks, which may be cancelled as well."""
    storm = Storm(seed, ACTIONS)
    storm.in_tasks()
    assert {"TimeoutError", "ConnectionRefusedError", "dispose", "cancel"} <= set(storm.done)
