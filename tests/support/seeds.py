"""Seeds of storms: the same in every run, but random where ``make soak`` sets another start."""

from __future__ import annotations

import os
from typing import Final

FIRST: Final = int(os.environ.get("SESSIONFACTORY_SEED", "0"))
"""The seed of a storm that has only one."""


def seeds(count: int) -> range:
    """Return seeds as parameters of a test, whose name then shows which one failed."""
    return range(FIRST, FIRST + count)
