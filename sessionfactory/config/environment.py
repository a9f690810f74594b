"""The environment's rules: which variable is which setting of which database.

A variable is a prefix and the setting's path in upper case, with underscores for dots:
``DATABASE_POOL_SIZE`` is ``pool.size`` of the database ``default``, ``ANALYTICS_DATABASE_URL`` the
``url`` of ``analytics``. ``…_FILE`` names a file to read the value from. Empty means unset. Nothing
is inherited between databases.
"""

from __future__ import annotations

import re
import warnings
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sessionfactory.config.configuration import DEFAULT, NAME, NO_TEXT, Place, Source, variable_for
from sessionfactory.config.rotating_secret import RotatingSecret
from sessionfactory.config.settings import DatabaseSettings
from sessionfactory.config.validation import leaves
from sessionfactory.config.values import as_table, near
from sessionfactory.errors import Fault, SettingsError, SettingsWarning

if TYPE_CHECKING:
    from collections.abc import Mapping

_MOST_BYTES: Final = 65_536
_SUFFIXES: Final = {
    path.upper().replace(".", "_"): path for path in leaves(DatabaseSettings) if path not in NO_TEXT
}


def read_variables(environ: Mapping[str, str], names: frozenset[str] | None) -> Source:
    """Return what the variables of all databases say, or of those in ``names``."""
    source = Source(Place("environment"))
    if as_table(environ) is None:
        source.faults.append(Fault("", "expected a mapping of variables", "environment"))
        return source
    spelled: dict[tuple[str, str], list[str]] = {}
    unknown: list[tuple[str, str, str]] = []
    for variable in sorted(map(str, environ)):
        split = _split(variable)
        if split is None or (names is not None and split[0] not in names):
            continue
        name, rest = split
        path = _SUFFIXES.get(rest) or _SUFFIXES.get(rest.removesuffix("_FILE"))
        if path is None:
            unknown.append((variable, name, rest))
        elif not str(environ[variable]).strip():
            source.empty.add(variable)
        else:
            spelled.setdefault((name, path), []).append(variable)
    for (name, path), variables in spelled.items():
        _read_variable(source, environ, name, path, variables)
    for variable, name, rest in unknown:
        _warn_if_near(source, variable, name, rest)
    return source


def _split(variable: str) -> tuple[str, str] | None:
    prefix, found, rest = variable.rpartition("_DATABASE_")
    if not found and variable.startswith("DATABASE_"):
        return DEFAULT, variable.removeprefix("DATABASE_")
    name = prefix.lower()
    return (name, rest) if found and prefix.isupper() and NAME.fullmatch(name) else None


def _read_variable(
    source: Source, environ: Mapping[str, str], name: str, path: str, variables: list[str]
) -> None:
    if len(variables) > 1:
        problem = f"{' and '.join(variables)} are both set; keep one"
        source.faults.append(Fault(f"{name}.{path}", problem, "environment"))
        return
    (variable,) = variables
    value: object = environ[variable]
    if not isinstance(value, str):
        problem = f"expected text, got {type(value).__name__}"
        source.faults.append(Fault(f"{name}.{path}", problem, variable))
    elif variable.endswith("_FILE"):
        _read_secret_file(source, name, path, variable, value)
    else:
        source.put(name, tuple(path.split(".")), value, variable)


def _read_secret_file(source: Source, name: str, path: str, variable: str, file: str) -> None:
    try:
        with Path(file).open("rb") as stream:
            content = stream.read(_MOST_BYTES + 1)
        problem = f"the file holds more than {_MOST_BYTES} bytes"
        text = content.decode() if len(content) <= _MOST_BYTES else None
    except (OSError, ValueError) as error:
        problem, text = unreadable(error), None
    if text is None:
        origin = f"{variable}={file}" if _names_a_place(file) else variable
        source.faults.append(Fault(f"{name}.{path}", problem, origin))
        return
    value: object = _without_newline(text)
    if path == "password":  # mounted secrets are replaced while the program runs
        value = RotatingSecret(partial(_read_again, Path(file)), cached_for=0.0)
    source.put(name, tuple(path.split(".")), value, f"{variable}={file}")


def _without_newline(text: str) -> str:
    return re.sub(r"\r?\n\Z", "", text)


def _read_again(file: Path) -> str:
    try:
        return _without_newline(file.read_bytes().decode())
    except (OSError, ValueError) as error:
        problem = unreadable(error)
    raise SettingsError([Fault("password", problem, str(file))])


def _names_a_place(file: str) -> bool:
    # What names no directory that is there may be the secret itself, and is not shown.
    return len(Path(file).parts) > 2 and "\0" not in file and Path(file).parent.is_dir()  # noqa: PLR2004


def _warn_if_near(source: Source, variable: str, name: str, rest: str) -> None:
    # Only for databases that are there: other programs have variables of their own.
    if name != DEFAULT and name not in source.databases:
        return
    known = {
        suffix.replace("_", "").lower(): variable_for(name, path)
        for suffix, path in {**_SUFFIXES, "URI": "url", "DSN": "url"}.items()
    }
    # DATABASE_PORT is somebody else's, and not DATABASE_POOL_RESET: only a slip of the pen counts.
    hint = near(rest.replace("_", ""), known, cutoff=0.85)
    if hint:
        warnings.warn(f"{variable} is not a setting{hint}", SettingsWarning, stacklevel=2)


def unreadable(error: OSError | ValueError) -> str:
    """Return why a file could not be read as text."""
    if isinstance(error, OSError):
        return f"the file cannot be read: {error.strerror}"
    if isinstance(error, UnicodeDecodeError):
        return "the file is not UTF-8 text"
    return "the file cannot be read: its name is no file's name"
