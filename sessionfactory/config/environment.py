"""The rules of the environment: which variable is which setting of which database.

A variable is a prefix and the path of a setting in upper case, with underscores for dots:
``DATABASE_POOL_SIZE`` is ``pool.size`` of the database ``default``, ``ANALYTICS_DATABASE_URL`` the
``url`` of ``analytics``. ``…_FILE`` names a file to read the value from. Two underscores lead into
a table of options: ``DATABASE_CONNECT_ARGS__APPLICATION_NAME``. Empty means unset. Nothing is
inherited between databases.
"""

from __future__ import annotations

import re
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sessionfactory.config.configuration import (
    DEFAULT,
    NAME,
    OPTIONS,
    OWN_TABLES,
    SESSION_OPTIONS,
    Place,
    Source,
    variable_for,
)
from sessionfactory.config.files import MOST_OF_A_SECRET, read_text
from sessionfactory.config.rotating_secret import RotatingSecret
from sessionfactory.config.settings import DatabaseSettings
from sessionfactory.config.validation import leaves
from sessionfactory.config.values import as_option, as_table, is_slip, near, to_bool
from sessionfactory.errors import Fault, SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sessionfactory.config.masking import Masked

_HABITS: Final = {
    "MAX_OVERFLOW": "pool.max_overflow",
    "PRE_PING": "pool.pre_ping",
    "AUTOFLUSH": "session.autoflush",
    "EXPIRE_ON_COMMIT": "session.expire_on_commit",
    "ISOLATION_LEVEL": f"{OPTIONS}.isolation_level",
    "HIDE_PARAMETERS": f"{OPTIONS}.hide_parameters",
    "LOGGING_NAME": f"{OPTIONS}.logging_name",
    "POOL_LOGGING_NAME": f"{OPTIONS}.pool_logging_name",
    "ECHO_POOL": f"{OPTIONS}.echo_pool",
    "SSLMODE": "tls",
    "SESSION_OWNER": "session.owner",
}
"""Short names that programs use by habit, or that SQLAlchemy gives what is no setting of ours; and
settings that are no longer there, so that they are refused."""
_TABLES: Final = {
    "ENGINE_OPTIONS__": OPTIONS,
    "CONNECT_ARGS__": f"{OPTIONS}.connect_args",
    "SESSION_OPTIONS__": SESSION_OPTIONS,
}
_ABOUT_TLS: Final = {"require": "require", "verify-full": "verify"}


def read_variables(given: Masked[object], names: frozenset[str] | None) -> Source:
    """Return what the variables of all databases hold, or of those in ``names``."""
    source = Source(Place("environment"))
    if as_table(given.reveal()) is None:
        source.faults.append(Fault("", "expected a mapping of variables", "environment"))
        return source
    spelled: dict[tuple[str, str], list[str]] = {}
    unknown: list[tuple[str, str, str]] = []
    source.variables = frozenset(map(str, as_table(given.reveal()) or ()))
    source.hint = "" if names is not None else _HINT
    for variable in sorted(source.variables):
        split = _split(variable)
        if split is None or (names is not None and split[0] not in names):
            continue
        name, rest = split
        path = _path_of(rest) or _path_of(rest.removesuffix("_FILE"))
        if path is None:
            unknown.append((variable, name, rest))
        elif not str(_value_of(given, variable)).strip():
            source.empty.add(variable)
        else:
            spelled.setdefault((name, path), []).append(variable)
    for (name, path), variables in spelled.items():
        if name == DEFAULT or not _belongs_to_another(name, spelled):
            _read_variable(source, given, name, path, variables)
    for variable, name, rest in unknown:
        _warn_if_near(source, variable, name, rest)
    _warn_of_a_misspelt_url(source, names)
    return source


_HINT: Final = (
    "; where the variables of this prefix belong to another program, name the databases of this"
    " one: names=('default',)"
)


def _value_of(given: Masked[object], variable: str) -> object:
    return (as_table(given.reveal()) or {})[variable]


def _split(variable: str) -> tuple[str, str] | None:
    prefix, found, rest = variable.rpartition("_DATABASE_")
    if not found and variable.startswith("DATABASE_"):
        return DEFAULT, variable.removeprefix("DATABASE_")
    name = prefix.lower()
    return (name, rest) if found and prefix.isupper() and NAME.fullmatch(name) else None


@cache
def _settings() -> dict[str, str]:
    """Return the path of each setting, by the end of its variable."""
    paths = leaves(DatabaseSettings)
    return {path.upper().replace(".", "_"): path for path in paths if path not in OWN_TABLES}


def _path_of(rest: str) -> str | None:
    for prefix, table in _TABLES.items():
        if rest.startswith(prefix) and rest != prefix:
            return f"{table}.{rest.removeprefix(prefix).lower()}"
    return _settings().get(rest) or _HABITS.get(rest)


def _belongs_to_another(name: str, spelled: Mapping[tuple[str, str], list[str]]) -> bool:
    """Return whether all that is there is a password: ``KEYCLOAK_DATABASE_PASSWORD``."""
    return {path for other, path in spelled if other == name} == {"password"}


def _read_variable(
    source: Source, given: Masked[object], name: str, path: str, variables: list[str]
) -> None:
    if len(variables) > 1:
        problem = f"{' and '.join(variables)} are both set; keep one"
        source.faults.append(Fault(f"{name}.{path}", problem, "environment"))
        return
    (variable,) = variables
    value = _value_of(given, variable)
    if not isinstance(value, str):
        problem = f"expected text, got {type(value).__name__}"
        source.faults.append(Fault(f"{name}.{path}", problem, variable))
        return
    origin = variable
    if variable.endswith("_FILE"):
        origin = f"{variable}={value}" if _names_a_place(value) else variable
        try:
            value = _from_file(path, Path(value))
        except ValueError as error:
            source.faults.append(Fault(f"{name}.{path}", str(error), origin))
            return
    if isinstance(value, str) and _reader_of(path, variable) is not None:
        value = _as_option(source, name, path, value, origin)
    source.put(name, tuple(path.split(".")), value, origin)


def _from_file(path: str, file: Path) -> str | RotatingSecret:
    text = _without_newline(read_text(file, MOST_OF_A_SECRET))
    if path == "password":  # mounted secrets are replaced while the program runs
        return RotatingSecret(partial(_read_again, file), cached_for=0.0)
    return text


def _without_newline(text: str) -> str:
    return re.sub(r"\r?\n\Z", "", text)


def _read_again(file: Path) -> str:
    try:
        return _without_newline(read_text(file, MOST_OF_A_SECRET))
    except ValueError as error:
        problem = str(error)
    raise SettingsError([Fault("password", problem, str(file))])


def _names_a_place(file: str) -> bool:
    # What names no directory that is there may be the secret itself, and is not shown.
    return len(Path(file).parts) > 2 and "\0" not in file and Path(file).parent.is_dir()  # noqa: PLR2004


def _reader_of(path: str, variable: str) -> Callable[[str], object] | None:
    """Return the function that reads the text of an option, which has no type of its own."""
    if path == "tls" and "SSLMODE" in variable:
        return _to_tls
    if path == f"{OPTIONS}.isolation_level":
        return lambda text: text.strip().upper().replace("_", " ")
    if path == f"{OPTIONS}.hide_parameters":
        return to_bool
    return as_option if path.startswith((f"{OPTIONS}.", f"{SESSION_OPTIONS}.")) else None


def _as_option(source: Source, name: str, path: str, text: str, variable: str) -> object:
    read = _reader_of(path, variable)
    try:
        return text if read is None else read(text)
    except ValueError as error:
        source.faults.append(Fault(f"{name}.{path}", str(error), variable))
        return text


def _to_tls(text: str) -> str:
    word = text.strip().lower()
    if word not in _ABOUT_TLS:
        raise ValueError("expected 'require' or 'verify-full'; write another sslmode into the URL")
    return _ABOUT_TLS[word]


def _warn_if_near(source: Source, variable: str, name: str, rest: str) -> None:
    # Only for databases that are there: other programs have variables of their own.
    if name != DEFAULT and name not in source.databases:
        return
    known = {
        suffix.replace("_", "").lower(): variable_for(name, path)
        for suffix, path in {**_settings(), "URI": "url", "DSN": "url"}.items()
    }
    # DATABASE_PORT belongs to another program, and is not DATABASE_POOL_RESET: only a slip counts.
    hint = near(rest.replace("_", ""), known, cutoff=0.85)
    if hint:
        source.warnings.append(f"{variable} is not a setting{hint}")


def _warn_of_a_misspelt_url(source: Source, names: frozenset[str] | None) -> None:
    """Warn of ``DATABSE_URL``, where there is no default database without it."""
    if DEFAULT in source.databases or (names is not None and DEFAULT not in names):
        return
    meant = variable_for(DEFAULT)
    for variable in sorted(source.variables - source.empty):
        is_reported = any(warning.startswith(f"{variable} ") for warning in source.warnings)
        if is_slip(variable, meant) and not is_reported:
            source.warnings.append(f"{variable} is not a setting; did you mean {meant!r}?")
