"""Configuration text becomes settings: a mapping, a TOML file, the environment.

Every value remembers where it came from.
"""

from __future__ import annotations

from pathlib import Path as FilePath
from typing import TYPE_CHECKING, cast

import attrs

from sessionfactory.config.configuration import Configuration, Place, Source, configure, flat
from sessionfactory.config.environment import read_variables
from sessionfactory.config.files import MOST_OF_A_CONFIGURATION, read_text
from sessionfactory.config.values import Table, as_table, shown
from sessionfactory.errors import Fault

if TYPE_CHECKING:
    import os

    from sessionfactory.config.masking import Masked


def read_mapping(mapping: Masked[object]) -> Configuration:
    """Read ``{"default": {"url": …, "pool": {"size": 10}}}``.

    Raises:
        SettingsError: everything that is wrong with it.
    """
    return configure(_tables(Place("mapping", ""), mapping.reveal()))


def read_toml(path: str | os.PathLike[str], environ: Masked[object] | None = None) -> Configuration:
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


def read_environ(
    environ: Masked[object],
    names: frozenset[str] | None = None,
    overrides: Masked[object] | None = None,
) -> Configuration:
    """Read the variables of all databases, or of those in ``names``.

    Args:
        environ: the variables.
        names: the databases to read.
        overrides: values that win over the variables, as ``read_mapping`` takes them.

    Raises:
        SettingsError: everything that is wrong with them.
    """
    source = read_variables(environ, names)
    if overrides is None:
        return configure(source)
    more = _tables(Place("mapping", ""), overrides.reveal())
    return attrs.evolve(configure(source, more), places=(source.place,))


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
        document = _document(read_text(path, MOST_OF_A_CONFIGURATION))
    except ValueError as error:
        return Source(place, faults=[Fault("", str(error), place.kind)])
    tool = as_table(document.get("tool", {}))
    if tool is None:
        return Source(place, faults=[Fault("tool", "expected a table", place.kind)])
    if "sessionfactory" not in tool:
        return _tables(place, document.get("databases", {}))
    own = as_table(tool["sessionfactory"])
    if own is None or "databases" in document:
        problem = (
            "expected a table" if own is None else "is there beside [databases]; use one of the two"
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


def _document(text: str) -> Table:
    import tomllib  # noqa: PLC0415 - only those who have a file need it

    try:
        return cast("Table", tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        problem = f"not valid TOML: {error}"  # which names line and column
    except RecursionError:
        problem = "not valid TOML: it is nested too deeply"
    except ValueError as error:
        problem = f"not valid TOML: {error}"
    raise ValueError(problem)
