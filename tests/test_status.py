"""The values that say how a database does, as people read them."""

from __future__ import annotations

import pickle
from dataclasses import FrozenInstanceError
from typing import get_args

import pytest

from sessionfactory import Health, Holder, PoolStatus
from sessionfactory.status import HealthState


def test_a_holder_is_a_line_for_people() -> None:
    """Where, who and how long stand in one line, which error messages list."""
    holder = Holder("app/service.py:42 in register", "thread MainThread", 1.26)

    assert str(holder) == "app/service.py:42 in register, thread MainThread, for 1.3 s"


@pytest.mark.parametrize("state", get_args(HealthState))
def test_only_ok_is_ok(state: HealthState) -> None:
    """A health check may ask for one boolean, and every other state is a no."""
    assert Health(state).ok is (state == "ok")


def test_the_values_are_values() -> None:
    """They compare by content, cannot be changed, and travel between processes."""
    holder = Holder("app.py:1 in main", "thread MainThread", 0.5)
    status = PoolStatus(15, 1, 1, 0, 0, 0, (holder,))

    assert pickle.loads(pickle.dumps(status)) == status
    with pytest.raises(FrozenInstanceError):
        status.size = 2  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
