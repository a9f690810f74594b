# pyright: reportUnnecessaryTypeIgnoreComment=true
"""The package's names as a type checker sees them; checked by mypy and pyright, never run."""

from __future__ import annotations

from typing import assert_type

import sessionfactory
from sessionfactory import (  # type: ignore[attr-defined]
    SesionFactory,  # pyright: ignore[reportAttributeAccessIssue, reportUnknownVariableType]
)

__all__ = ["SesionFactory"]


def attributes() -> None:
    """The lazy names are ordinary attributes of the package."""
    assert_type(sessionfactory.__version__, str)
    assert_type(sessionfactory.DatabaseSettings("sqlite://"), sessionfactory.DatabaseSettings)
    assert_type(sessionfactory.Health("ok").ok, bool)


def refused() -> None:
    """A misspelt name is an error, although names are loaded lazily."""
    sessionfactory.DatabaseSetings  # type: ignore[attr-defined]  # noqa: B018  # pyright: ignore[reportAttributeAccessIssue]
