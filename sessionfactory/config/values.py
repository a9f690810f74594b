"""Values: how text becomes a type, which values are in range, and seconds in other units."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias, cast

from sessionfactory.config.masking import Secret
from sessionfactory.errors import Fault, SettingsError

Table: TypeAlias = Mapping[object, object]
Check: TypeAlias = Callable[[Any], str | None]

LONGEST: Final = 2_147_483
"""Seconds that drivers and servers accept, which count milliseconds in 32 bits: 24 days."""
SHORTEST: Final = 0.001
"""Seconds: the unit of servers is the millisecond, and they read 0 as "no limit"."""

_CHECK: Final = "check"
_SHOWN: Final = 60
_DEEPEST: Final = 20
_WORDS: Final = {
    **dict.fromkeys(("true", "yes", "on", "1"), True),
    **dict.fromkeys(("false", "no", "off", "0"), False),
}
_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,18}")
_DECIMAL: Final = re.compile(r"[+-]?([0-9]{1,18}\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")


def milliseconds(seconds: float) -> int:
    """Return a duration in whole milliseconds, rounded up: a limit never becomes 0, "no limit"."""
    return math.ceil(seconds * 1000)


def whole_seconds(seconds: float) -> int:
    """Return a duration in whole seconds, rounded up, for drivers that take nothing finer."""
    return math.ceil(seconds)


def as_table(value: object) -> Table | None:
    """Return ``value`` if it is a mapping."""
    return cast("Table", value) if isinstance(value, Mapping) else None


def checked(check: Check) -> dict[str, Check]:
    """Field metadata: ``check`` returns a sentence if the value cannot be used."""
    return {_CHECK: check}


def check_of(metadata: Mapping[Any, Any]) -> Check | None:
    """Return the check that the metadata of a field holds."""
    return cast("Check | None", metadata.get(_CHECK))


def at_least(least: float, *, instead: str | None = None) -> dict[str, Check]:
    """Field metadata: the value is ``least`` or more; ``instead`` names the remedy if it is not."""

    def check(value: float) -> str | None:
        return None if value >= least else (instead or f"expected {least:g} or more, got {value}")

    return checked(check)


def more_than(bound: float, *, instead: str = "") -> dict[str, Check]:
    """Field metadata: the value is greater than ``bound``; ``instead`` names the remedy."""

    def check(value: float) -> str | None:
        return None if value > bound else f"expected more than {bound:g}, got {value:g}{instead}"

    return checked(check)


def near(word: str, known: Mapping[str, str], cutoff: float = 0.6) -> str:
    """Return ``"; did you mean 'x'?"`` for the known word nearest to ``word``, or nothing.

    Args:
        word: what was written.
        known: what is shown for each word that would have been right.
        cutoff: how alike they must be, from 0 to 1; the default is that of ``difflib``.
    """
    from difflib import get_close_matches  # noqa: PLC0415 - only errors and warnings need it

    found = get_close_matches(word.lower().replace("-", "_"), known, n=1, cutoff=cutoff)
    return f"; did you mean {known[found[0]]!r}?" if found else ""


def is_slip(word: str, meant: str) -> bool:
    """Return whether ``word`` differs from ``meant`` by one letter, or by two in wrong order."""
    start = 0
    while start < min(len(word), len(meant)) and word[start] == meant[start]:
        start += 1
    here, there = word[start:], meant[start:]
    while here and there and here[-1] == there[-1]:
        here, there = here[:-1], there[:-1]
    one_letter = len(here) <= 1 and len(there) <= 1 and here != there
    return one_letter or (len(here) == len("ab") and here == there[::-1])


def shown(key: object) -> str:
    """Return a key as a message shows it, however long it is and of whatever type."""
    text = key if isinstance(key, str) else repr(key)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def kind_of(value: object) -> str:
    """Return the kind of a value for a message, never the value, which may be a secret."""
    return "text" if isinstance(value, str | Secret) else type(value).__name__


def to_bool(given: object) -> bool:
    """Return a truth value; text is read for what it means."""
    value = _WORDS.get(given.strip().lower(), given) if isinstance(given, str) else given
    if isinstance(value, bool):
        return value
    raise ValueError(f"expected true or false, got {kind_of(given)}{_unlike(given)}")


def to_int(given: object) -> int:
    """Return a whole number."""
    is_text = isinstance(given, str) and _INTEGER.fullmatch(given.strip())
    value = int(given) if isinstance(given, str) and is_text else given
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"expected a whole number, got {kind_of(given)}{_unlike(given)}")
    if abs(value) > LONGEST:
        raise ValueError(f"expected a number up to {LONGEST}")
    return value


def to_float(given: object) -> float:
    """Return a number of seconds."""
    is_text = isinstance(given, str) and _DECIMAL.fullmatch(given.strip())
    value = float(given) if isinstance(given, str) and is_text else given
    if not isinstance(value, int | float) or isinstance(value, bool) or value != value:  # noqa: PLR0124
        raise ValueError(f"expected a number, got {kind_of(given)}{_unlike(given)}")
    if abs(value) > LONGEST:
        raise ValueError(f"expected seconds up to {LONGEST}; None is no limit")
    return float(value)


def _unlike(given: object) -> str:
    return " that is not one" if isinstance(given, str | float) else ""


def to_count(given: object) -> int | None:
    """Return a whole number, 1 or more; ``None`` is no limit."""
    value = None if given is None else to_int(given)
    if value is not None and value < 1:
        raise ValueError(f"expected 1 or more, got {value}")
    return value


def to_time_limit(given: object) -> float | None:
    """Return a number of seconds above 0; ``None`` is no limit."""
    value = None if given is None else to_float(given)
    if value is not None and value <= 0:
        raise ValueError(f"expected more than 0, got {value:g}")
    return value


def read_all(given: Mapping[str, tuple[object, Callable[[object], object]]]) -> dict[str, Any]:
    """Return the values of arguments, each read by its function.

    Raises:
        SettingsError: all that cannot be used, by the argument's name.
    """
    values: dict[str, Any] = {}
    faults: list[Fault] = []
    for name, (value, read) in given.items():
        try:
            values[name] = read(value)
        except ValueError as error:
            faults.append(Fault(name, str(error)))
    if faults:
        raise SettingsError(faults)
    return values


def to_choice(given: object, choices: tuple[str, ...]) -> str:
    """Return one of several words, whatever the case of the text."""
    words = {choice.lower(): choice for choice in choices}
    word = given.strip().lower() if isinstance(given, str) else ""
    if word in words:
        return words[word]
    hint = near(word, words) if word else ""
    expected = ", ".join(map(repr, choices[:-1]))
    raise ValueError(f"expected {expected}{' or ' if expected else ''}{choices[-1]!r}{hint}")


def to_options(given: object) -> dict[str, object]:
    """Return a copy of a table of options; tables inside may have keys of any type."""
    table = as_table(given)
    if table is None or not all(isinstance(key, str) for key in table):
        what = "" if table is None else " with a key that is no text"
        raise ValueError(f"expected a table of options, got {kind_of(given)}{what}")
    return cast("dict[str, object]", _copied(table, 0))


def to_table(given: object) -> dict[object, object]:
    """Return a copy of a mapping."""
    table = as_table(given)
    if table is None:
        raise ValueError(f"expected a mapping, got {kind_of(given)}")
    return dict(table)


def _copied(table: Table, depth: int) -> dict[object, object]:
    if depth > _DEEPEST:
        raise ValueError("is nested too deeply")
    return {
        key: value if (inner := as_table(value)) is None else _copied(inner, depth + 1)
        for key, value in table.items()
    }


def as_option(text: str) -> object:
    """Return what TOML would make of an option's text: a truth value, a number, or the text."""
    if text in {"true", "false"}:
        return text == "true"
    if _INTEGER.fullmatch(text) and str(int(text)) == text:
        return int(text)
    return float(text) if _DECIMAL.fullmatch(text) and "." in text else text
