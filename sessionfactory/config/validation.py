"""How a settings class takes its values: text becomes the field's type, and all faults are told."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from operator import attrgetter
from typing import Any, Final, Literal, TypeAlias, TypeVar, cast, get_args, get_origin

import attrs
from cattrs import Converter
from sqlalchemy import URL

from sessionfactory.config.masking import Secret, parse_url
from sessionfactory.config.rotating_secret import RotatingSecret
from sessionfactory.errors import Fault, SettingsError

T = TypeVar("T")
Table: TypeAlias = Mapping[object, object]

_CHECK: Final = "check"
_MISSING: Final = object()
_WORDS: Final = {
    **dict.fromkeys(("true", "yes", "on", "1"), True),
    **dict.fromkeys(("false", "no", "off", "0"), False),
}
_DEEPEST: Final = 20
_SHOWN: Final = 60
_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,18}")
_DECIMAL: Final = re.compile(r"[+-]?([0-9]{1,18}\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")
_LARGEST: Final = 2_147_483
"""What drivers and servers hold, who count milliseconds in 32 bits: 24 days."""


def as_table(value: object) -> Table | None:
    """Return ``value`` if it is a mapping."""
    return cast("Table", value) if isinstance(value, Mapping) else None


def at_least(
    least: float, *, instead: str | None = None
) -> dict[str, Callable[[float], str | None]]:
    """Field metadata: the value is ``least`` or more; ``instead`` says what to do if it is not."""

    def check(value: float) -> str | None:
        return None if value >= least else (instead or f"expected {least:g} or more, got {value}")

    return {_CHECK: check}


def more_than(bound: float) -> dict[str, Callable[[float], str | None]]:
    """Field metadata: the value is greater than ``bound``."""

    def check(value: float) -> str | None:
        return None if value > bound else f"expected more than {bound:g}, got {value:g}"

    return {_CHECK: check}


def checked(check: Callable[[Any], str | None]) -> dict[str, Callable[[Any], str | None]]:
    """Field metadata: ``check`` returns a sentence if the value cannot be used."""
    return {_CHECK: check}


def near(word: str, known: Mapping[str, str], cutoff: float = 0.6) -> str:
    """Return ``"; did you mean 'x'?"`` for the known word nearest to ``word``, or nothing.

    Args:
        word: what was written.
        known: what is shown for each word that would have been right.
        cutoff: how alike they must be, from 0 to 1; the default is ``difflib``'s.
    """
    found = get_close_matches(word.lower().replace("-", "_"), known, n=1, cutoff=cutoff)
    return f"; did you mean {known[found[0]]!r}?" if found else ""


def settle(
    settings: attrs.AttrsInstance, conflicts: Callable[[set[str]], list[Fault]] | None = None
) -> None:
    """Give every field of a new instance its type and check it; raise all faults together.

    Args:
        settings: the instance whose fields hold what the caller gave.
        conflicts: the rules between fields; it gets the names of the fields that have no fault.

    Raises:
        SettingsError: what cannot be used, each with its path below this class.
    """
    faults: list[Fault] = []
    sound: set[str] = set()
    for field in attrs.fields(type(settings)):
        found = _settle_field(settings, field)
        faults += found
        if not found:
            sound.add(field.name)
    if conflicts is not None:
        faults += conflicts(sound)
    if faults:
        raise SettingsError(faults)


def _settle_field(settings: attrs.AttrsInstance, field: attrs.Attribute[Any]) -> list[Fault]:
    given = getattr(settings, field.name)
    try:
        value = _converter.structure(given, cast("type[object]", field.type))
        check = field.metadata.get(_CHECK)
        problem = check(value) if check and value is not None else None
    except SettingsError as error:
        return [under(field.name, fault) for fault in error.faults]
    except ValueError as error:
        problem = str(error)
    else:
        object.__setattr__(settings, field.name, value)  # the class is frozen from here on
    return [Fault(field.name, problem)] if problem else []


def under(name: str, fault: Fault) -> Fault:
    """Return the fault as seen from one level further out."""
    separator = "" if not fault.path or fault.path.startswith("[") else "."
    path = f"{name}{separator}{fault.path}"
    return Fault(path, fault.problem, fault.origin)


def leaves(cls: type[attrs.AttrsInstance], prefix: str = "") -> dict[str, Any]:
    """Return the type of every setting below a class, by its dotted path."""
    found: dict[str, Any] = {}
    for field in attrs.fields(cls):
        if attrs.has(field.type):
            found |= leaves(field.type, f"{prefix}{field.name}.")
        else:
            found[prefix + field.name] = field.type
    return found


def value_at(settings: attrs.AttrsInstance, path: str) -> object:
    """Return the value of a setting by its dotted path."""
    return attrgetter(path)(settings)


def structure(given: object, cls: type[T]) -> T:
    """Build a settings class from a mapping.

    Raises:
        SettingsError: every fault of the class and of the classes in it, unknown keys included.
    """
    return _converter.structure(given, cls)


def _structure_settings(given: object, cls: type[Any]) -> Any:
    if isinstance(given, cls):
        return given
    table = as_table(given)
    if table is None:
        raise ValueError(f"expected a table of settings, got {_kind(given)}")
    fields = {field.name: field for field in attrs.fields(cls)}
    faults = [
        Fault(shown(key), f"unknown setting{near(str(key), _names(cls))}")
        for key in table
        if key not in fields
    ]
    arguments = {name: table[name] for name in fields if name in table}
    for name, field in fields.items():
        if field.default is attrs.NOTHING:
            arguments.setdefault(name, _MISSING)
    try:
        settings = cls(**arguments)
    except SettingsError as error:
        raise SettingsError([*faults, *error.faults]) from None
    if faults:
        raise SettingsError(faults)
    return settings


def _names(cls: type[attrs.AttrsInstance]) -> dict[str, str]:
    sections = {field.name: field.name for field in attrs.fields(cls)}
    return sections | {path.replace(".", "_"): path for path in leaves(cls)}


def shown(key: object) -> str:
    """Return a key as a message shows it, be it ever so long or no text at all."""
    text = key if isinstance(key, str) else repr(key)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _kind(value: object) -> str:
    # The kind only: what stands in the wrong place may well be a secret.
    return "text" if isinstance(value, str | Secret) else type(value).__name__


def _to_bool(given: object, _type: object) -> bool:
    value = _WORDS.get(given.strip().lower(), given) if isinstance(given, str) else given
    if isinstance(value, bool):
        return value
    raise ValueError(f"expected true or false, got {_kind(given)}{_unlike(given)}")


def _to_int(given: object, _type: object) -> int:
    is_text = isinstance(given, str) and _INTEGER.fullmatch(given.strip())
    value = int(given) if isinstance(given, str) and is_text else given
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"expected a whole number, got {_kind(given)}{_unlike(given)}")
    if abs(value) > _LARGEST:
        raise ValueError(f"expected a number up to {_LARGEST}")
    return value


def _to_float(given: object, _type: object) -> float:
    is_text = isinstance(given, str) and _DECIMAL.fullmatch(given.strip())
    value = float(given) if isinstance(given, str) and is_text else given
    if not isinstance(value, int | float) or isinstance(value, bool) or value != value:  # noqa: PLR0124
        raise ValueError(f"expected a number, got {_kind(given)}{_unlike(given)}")
    if abs(value) > _LARGEST:
        raise ValueError(f"expected seconds up to {_LARGEST}; None is no limit")
    return float(value)


def _unlike(given: object) -> str:
    return " that is not one" if isinstance(given, str | float) else ""


def _to_secret(given: object, _type: object) -> Secret:
    if isinstance(given, Secret):
        return given
    if isinstance(given, str):
        return Secret(given)
    if callable(given):
        return RotatingSecret(cast("Callable[[], str]", given))
    raise ValueError(f"expected text, got {_kind(given)}")


def _to_url(given: object, _type: object) -> URL:
    if given is _MISSING:
        raise ValueError("is missing: a database needs a URL")
    return parse_url(given)


def _to_urls(given: object, _type: object) -> tuple[URL, ...]:
    text = given.reveal() if isinstance(given, Secret) else given
    if isinstance(text, str):
        return _each_url(text.split())
    if isinstance(text, list | tuple) and not isinstance(text, URL):  # a URL is a tuple, too
        return _each_url(cast("Sequence[object]", text))
    raise ValueError(f"expected a list of database URLs, got {_kind(given)}")


def _each_url(parts: Sequence[object]) -> tuple[URL, ...]:
    urls: list[URL] = []
    faults: list[Fault] = []
    for index, part in enumerate(parts):
        try:
            urls.append(parse_url(part))
        except ValueError as error:
            faults.append(Fault(f"[{index}]", str(error)))
    if faults:
        raise SettingsError(faults)
    return tuple(urls)


def _to_choice(given: object, kind: Any) -> Any:
    choices: tuple[str, ...] = get_args(kind)
    word = given.strip().lower() if isinstance(given, str) else given
    if word in choices:
        return word
    hint = near(word, dict(zip(choices, choices, strict=True))) if isinstance(word, str) else ""
    raise ValueError(f"expected {', '.join(map(repr, choices[:-1]))} or {choices[-1]!r}{hint}")


def _to_optional(given: object, kind: Any) -> Any:
    (inner,) = (part for part in get_args(kind) if part is not type(None))
    unset = inner in {int, float} and isinstance(given, str) and given.strip().lower() == "none"
    return None if given is None or unset else _converter.structure(given, inner)


def _to_secrets(given: object, _type: object) -> dict[str, Secret]:
    return {key: _to_secret(value, None) for key, value in _to_options(given, None).items()}


def _to_options(given: object, _type: object, depth: int = 0) -> dict[str, object]:
    table = as_table(given)
    if depth > _DEEPEST:
        raise ValueError("is nested too deeply")
    if table is not None and all(isinstance(key, str) for key in table):
        return {
            str(key): value if as_table(value) is None else _to_options(value, None, depth + 1)
            for key, value in table.items()
        }
    raise ValueError(f"expected a table of options, got {_kind(given)}")


def _is_optional(kind: object) -> bool:
    return type(None) in get_args(kind)


def _origin(kind: object) -> object:
    return get_origin(kind)


def _make_converter() -> Converter:
    converter = Converter(detailed_validation=False)
    for kind, hook in {
        bool: _to_bool, int: _to_int, float: _to_float,
        Secret: _to_secret, URL: _to_url,
    }.items():  # fmt: skip
        converter.register_structure_hook(kind, hook)
    converter.register_structure_hook_func(lambda kind: kind == tuple[URL, ...], _to_urls)
    converter.register_structure_hook_func(_is_optional, _to_optional)
    converter.register_structure_hook_func(lambda kind: _origin(kind) is Literal, _to_choice)
    converter.register_structure_hook_func(lambda kind: _origin(kind) is Mapping, _to_options)
    converter.register_structure_hook_func(lambda kind: kind == Mapping[str, Secret], _to_secrets)
    converter.register_structure_hook_func(attrs.has, _structure_settings)
    return converter


_converter: Final = _make_converter()


def makes_sessions(given: object) -> bool:
    """Say whether something has the members of a session factory; a session or engine has not."""
    return callable(given) and callable(getattr(given, "begin", None))
