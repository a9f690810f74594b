"""Configuration text becomes settings: a mapping, a TOML file, the environment.

Every value remembers where it came from.
"""

from __future__ import annotations

import tomllib
from pathlib import Path as FilePath
from typing import TYPE_CHECKING

from sessionfactory.config.configuration import Configuration, Place, Source, configure, flat
from sessionfactory.config.environment import read_variables, unreadable
from sessionfactory.config.values import as_table, shown
from sessionfactory.errors import Fault

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping


def read_mapping(mapping: Mapping[str, object]) -> Configuration:
    """Read ``{"default": {"url": …, "pool": {"size": 10}}}``.

    Raises:
        SettingsError: everything that is wrong with it.
    """
    return configure(_tables(Place("mapping", ""), mapping))


def read_toml(
    path: str | os.PathLike[str], environ: Mapping[str, str] | None = None
) -> Configuration:
    """Read ``[databases.default]`` (or ``[tool.sessionfactory.databases.default]``) of a file.

    Args:
        path: the file.
        environ: variables that win over the file, value by value.

    Raises:
        SettingsError: everything that is wrong with it.
    """
    source = _toml_tables(FilePath(path))
    if environ is None:
        return configure(source)
    return configure(source, read_variables(environ, None))


def read_environ(environ: Mapping[str, str], names: frozenset[str] | None = None) -> Configuration:
    """Read the variables of all databases, or of those in ``names``.

    Raises:
        SettingsError: everything that is wrong with them.
    """
    return configure(read_variables(environ, names))


def _tables(place: Place, given: object) -> Source:
    source = Source(place)
    tables = as_table(given)
    if tables is None:
        problem = "expected a table of databases, such as {'default': {'url': …}}"
        source.faults.append(Fault(place.tables.rstrip("."), problem, place.kind))
        return source
    for name, value in tables.items():
        table = as_table(value)
        if table is None:
            problem = "expected a table of settings, such as {'url': …}"
            source.faults.append(Fault(shown(name), problem, place.kind))
            continue
        source.databases[str(name)] = {}
        for path, leaf in flat(table):
            source.put(str(name), path, leaf, place.origin(str(name)))
    return source


def _toml_tables(path: FilePath) -> Source:
    place = Place(str(path))
    try:
        content = path.read_bytes()
    except (OSError, ValueError) as error:
        return Source(place, faults=[Fault("", unreadable(error), place.kind)])
    try:
        document = tomllib.loads(content.decode())
    except (ValueError, RecursionError) as error:  # TOML and Unicode errors are ValueErrors
        return Source(place, faults=[Fault("", _reason(error), place.kind)])
    tool = as_table(document.get("tool", {}))
    if tool is None:
        return Source(place, faults=[Fault("tool", "expected a table", place.kind)])
    if "sessionfactory" not in tool:
        return _tables(place, document.get("databases", {}))
    own = as_table(tool["sessionfactory"])
    if own is None or "databases" in document:
        problem = (
            "expected a table"
            if own is None
            else "stands beside [databases]; say it in one of the two places"
        )
        return Source(place, faults=[Fault("tool.sessionfactory", problem, place.kind)])
    source = _tables(Place(place.kind, "tool.sessionfactory.databases."), own.get("databases", {}))
    source.faults += [
        Fault(
            f"tool.sessionfactory.{shown(key)}", "unknown table; expected 'databases'", place.kind
        )
        for key in own
        if key != "databases"
    ]
    return source


def _reason(error: ValueError | RecursionError) -> str:
    if isinstance(error, tomllib.TOMLDecodeError):
        return f"is no TOML: {error}"  # which names line and column
    if isinstance(error, RecursionError):
        return "is no TOML that can be read: it is nested too deeply"
    if isinstance(error, UnicodeDecodeError):
        return unreadable(error)
    return f"is no TOML that can be read: {error}"
