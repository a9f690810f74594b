"""The clock of deadlines, which tests that freeze or travel in time do not reach.

freezegun replaces the functions of ``time`` in all modules, and a loop that waits for a deadline on
a clock that stands still never ends. Both clocks below count the same seconds on Linux.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

monotonic: Final[Callable[[], float]] = (
    partial(time.clock_gettime, time.CLOCK_MONOTONIC)
    if hasattr(time, "clock_gettime")
    else time.monotonic  # Windows
)
"""Return seconds that only grow, from a point in the past; a difference of two is a duration."""
