"""How a settings class takes its values: each becomes its field's type; all faults are reported."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from operator import attrgetter
from typing import Any, Final, Literal, TypeVar, cast, get_args, get_origin, get_type_hints

import attrs
from sqlalchemy import URL

from sessionfactory.config import removed
from sessionfactory.config.masking import Secret, SecretLike, parse_url
from sessionfactory.config.rotating_secret import RotatingSecret
from sessionfactory.config.values import (
    as_table,
    check_of,
    kind_of,
    near,
    shown,
    to_bool,
    to_choice,
    to_float,
    to_int,
    to_options,
    to_table,
)
from sessionfactory.errors import Fault, SettingsError

T = TypeVar("T")
_MISSING: Final = object()


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
    types = types_of(type(settings))
    for field in attrs.fields(type(settings)):
        found = _settle_field(settings, field, types[field.name])
        faults += found
        if not found:
            sound.add(field.name)
    if conflicts is not None:
        faults += conflicts(sound)
    if faults:
        raise SettingsError(faults)


@cache
def types_of(cls: type[attrs.AttrsInstance]) -> dict[str, Any]:
    """Return the types of the fields of a settings class; resolved on first use, not on import."""
    return get_type_hints(cls)


def _settle_field(
    settings: attrs.AttrsInstance, field: attrs.Attribute[Any], kind: Any
) -> list[Fault]:
    given = getattr(settings, field.name)
    if refused := removed.refusal(field.metadata, given):
        return [Fault(field.name, refused)]
    try:
        value = _reader_of(kind)(given)
        check = check_of(field.metadata)
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
    for name, kind in types_of(cls).items():
        if attrs.has(kind):
            found |= leaves(kind, f"{prefix}{name}.")
        else:
            found[prefix + name] = kind
    return found


def value_at(settings: attrs.AttrsInstance, path: str) -> object:
    """Return the value of a setting by its dotted path."""
    return attrgetter(path)(settings)


def structure(given: object, cls: type[T]) -> T:
    """Build a settings class from a mapping.

    Raises:
        SettingsError: every fault of the class and of the classes in it, unknown keys included.
    """
    if isinstance(given, cls):
        return given
    table = as_table(given)
    if table is None:
        raise ValueError(f"expected a table of settings, got {kind_of(given)}")
    fields = {field.name: field for field in attrs.fields(cast("type[attrs.AttrsInstance]", cls))}
    gone = removed.settings_of(cls)
    faults = [
        Fault(shown(key), gone.get(str(key)) or f"unknown setting{near(str(key), _names(cls))}")
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


def _names(cls: type[Any]) -> dict[str, str]:
    sections = {field.name: field.name for field in attrs.fields(cls)}
    return sections | {path.replace(".", "_"): path for path in leaves(cls)}


@cache
def _reader_of(kind: Any) -> Callable[[object], Any]:
    """Return the function that reads a value of a field's type."""
    if kind in _READERS:
        return _READERS[kind]
    origin, parts = get_origin(kind), get_args(kind)
    if type(None) in parts:
        return _optional(next(part for part in parts if part is not type(None)))
    if origin is Literal:
        return lambda given: to_choice(given, parts)
    if origin is Mapping and parts[0] is str and parts[1] is object:
        return to_options
    if origin is Mapping:
        return _to_secrets if parts[1] is Secret else to_table
    return lambda given: structure(given, kind)


def _optional(kind: Any) -> Callable[[object], Any]:
    read = _reader_of(kind)
    is_number = kind in {int, float}

    def read_optional(given: object) -> Any:
        unset = is_number and isinstance(given, str) and given.strip().lower() == "none"
        return None if given is None or unset else read(given)

    return read_optional


def _to_secret(given: object) -> Secret:
    if isinstance(given, Secret):
        return given
    if isinstance(given, str):
        return Secret(given)
    if isinstance(given, SecretLike):
        return Secret(given.get_secret_value())
    if callable(given):
        return RotatingSecret(cast("Callable[[], str]", given))
    raise ValueError(f"expected text, got {kind_of(given)}")


def _to_secrets(given: object) -> dict[str, Secret]:
    return {key: _to_secret(value) for key, value in to_options(given).items()}


def _to_url(given: object) -> URL:
    if given is _MISSING:
        raise ValueError("is missing: a database needs a URL")
    return parse_url(given)


def _to_urls(given: object) -> tuple[URL, ...]:
    text = given.reveal() if isinstance(given, Secret) else given
    if isinstance(text, str):
        return _each_url(text.split())
    if isinstance(text, list | tuple) and not isinstance(text, URL):  # a URL is a tuple, too
        return _each_url(cast("Sequence[object]", text))
    raise ValueError(f"expected a list of database URLs, got {kind_of(given)}")


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


def _to_echo(given: object) -> bool | Literal["debug"]:
    if isinstance(given, str) and given.strip().lower() == "debug":
        return "debug"
    return to_bool(given)


_READERS: Final[dict[Any, Callable[[object], Any]]] = {
    bool: to_bool,
    int: to_int,
    float: to_float,
    Secret: _to_secret,
    URL: _to_url,
    tuple[URL, ...]: _to_urls,
    bool | Literal["debug"]: _to_echo,
}
