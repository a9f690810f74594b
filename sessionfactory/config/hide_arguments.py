"""Constructors whose arguments no traceback shows."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, TypeVar

from sessionfactory.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable

C = TypeVar("C", bound=type[object])


def unseen(cls: C) -> C:
    """Make a class raise its ``SettingsError`` and ``TypeError`` from a frame without arguments.

    Error trackers and ``pytest -l`` print the variables of every frame, and a constructor that
    refuses a URL still has it, password included, in its own.
    """
    make: Callable[..., None] = cls.__init__

    @functools.wraps(make)
    def init(self: object, *arguments: object, **keywords: object) -> None:
        refusal: Exception
        try:
            make(self, *arguments, **keywords)
        except SettingsError as error:
            refusal = SettingsError(error.faults)
        except TypeError as error:  # an unknown keyword, for instance
            refusal = TypeError(*error.args)
        else:
            return
        del self, arguments, keywords
        raise refusal from None

    setattr(cls, "__init__", init)  # noqa: B010 - as attrs itself did before
    return cls
