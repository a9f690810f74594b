"""Constructors whose arguments no traceback shows."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, TypeVar

from sessionfactory.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable

C = TypeVar("C", bound=type[object])


def unseen(cls: C) -> C:
    """Have the class raise its ``SettingsError`` from a frame that holds no argument.

    Error trackers and ``pytest -l`` print the variables of every frame, and a constructor that
    refuses a URL still has it, password and all, in its own.
    """
    make: Callable[..., None] = cls.__init__

    @functools.wraps(make)
    def init(self: object, *arguments: object, **keywords: object) -> None:
        try:
            make(self, *arguments, **keywords)
        except SettingsError as error:
            faults = error.faults
        else:
            return
        del self, arguments, keywords
        raise SettingsError(faults) from None

    setattr(cls, "__init__", init)  # noqa: B010 - what attrs itself did a moment ago
    return cls
