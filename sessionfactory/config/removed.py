"""Settings and values that are no longer there: each is refused with what to use instead."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Final, TypeVar, cast

from sessionfactory.errors import Fault, SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

C = TypeVar("C", bound=type[object])

OWNER: Final = (
    "no longer a setting: inject the factory, and open one session per thread or task; two that"
    " are inside a session at the same time are refused in any case"
)
QUEUE: Final = (
    "'queue' is no longer a kind of pool: use 'fair', which has the same settings; or SQLAlchemy's"
    " own sessionmaker(create_engine(url)), whose pool is a QueuePool and which is a SessionFactory"
)
_FIELD: Final = "removed"
_CLASS: Final = "__sessionfactory_removed__"


def without(**settings: str) -> Callable[[C], C]:
    """Return a decorator that makes a class of settings refuse keywords that it no longer has.

    Args:
        settings: for each keyword, the sentence that says what to use instead.
    """

    def decorate(cls: C) -> C:
        make: Callable[..., None] = cls.__init__

        @functools.wraps(make)
        def init(self: object, *arguments: object, **keywords: object) -> None:
            faults = [Fault(name, why) for name, why in settings.items() if name in keywords]
            if faults:
                raise SettingsError(faults)
            make(self, *arguments, **keywords)

        setattr(cls, "__init__", init)  # noqa: B010 - as attrs itself did before
        setattr(cls, _CLASS, settings)
        return cls

    return decorate


def settings_of(cls: type[object]) -> Mapping[str, str]:
    """Return the sentence for each setting that a class no longer has."""
    removed: Mapping[str, str] = getattr(cls, _CLASS, {})
    return removed


def values(**sentences: str) -> dict[str, dict[str, str]]:
    """Field metadata: values that are no longer there, each with its sentence."""
    return {_FIELD: sentences}


def refusal(metadata: Mapping[object, object], given: object) -> str | None:
    """Return the sentence if the metadata of a field names ``given`` as removed."""
    sentences = cast("Mapping[str, str]", metadata.get(_FIELD, {}))
    return sentences.get(given.strip().lower()) if isinstance(given, str) else None
