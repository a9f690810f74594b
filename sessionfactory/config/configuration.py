"""What the sources of a configuration hold: merged, checked, each value with its origin."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping  # noqa: TC003 - attrs resolves the annotations
from typing import Final, TypeAlias, cast

import attrs

from sessionfactory.config.masking import Secret, is_secret_key
from sessionfactory.config.settings import DatabaseSettings
from sessionfactory.config.validation import structure, under
from sessionfactory.config.values import Table, as_table, is_slip, near, shown
from sessionfactory.errors import Fault, SettingsError

DEFAULT: Final = "default"
NAME: Final = re.compile(r"[a-z][a-z0-9_]*")
OPTIONS: Final = "engine_options"
SESSION_OPTIONS: Final = "session.options"
OWN_TABLES: Final = frozenset({OPTIONS, SESSION_OPTIONS, "url_secrets"})
"""Settings that are tables whose keys are no settings."""
_DEEPEST: Final = 2
_BAD_NAME: Final = "expected a name of a-z, 0-9 and _, beginning with a letter"

Path: TypeAlias = tuple[str, ...]


@attrs.frozen
class Place:
    """Where a configuration is kept, and how a person would add a database to it."""

    kind: str
    """``"environment"``, ``"mapping"`` or the name of a file."""
    tables: str = "databases."
    """What comes before the name of a database in the header of its table."""

    def way_to_add(self, name: str) -> str:
        """Return what to do to configure a database here."""
        if self.kind == "environment":
            return f"set {variable_for(name)} (environment)"
        if self.kind == "mapping":
            return f"add {name!r} to the mapping of databases"
        return f"add [{self.tables}{name}] with a url to {self.kind}"

    def origin(self, name: str) -> str:
        """Return the origin of what is missing from a database here."""
        if self.kind == "environment":
            return f"{variable_for(name)} is not set"
        return self.kind if self.kind == "mapping" else f"{self.kind} [{self.tables}{name}]"


@attrs.define
class Source:
    """What one source holds, before it is checked: values by database, and their origins."""

    place: Place
    databases: dict[str, dict[str, object]] = attrs.field(
        factory=dict[str, dict[str, object]], repr=False
    )
    origins: dict[tuple[str, str], str] = attrs.field(factory=dict[tuple[str, str], str])
    faults: list[Fault] = attrs.field(factory=list[Fault])
    warnings: list[str] = attrs.field(factory=list[str])
    """What can be used, but is probably not what was meant."""
    empty: set[str] = attrs.field(factory=set[str])
    """Names of variables that are set to nothing."""
    variables: frozenset[str] = attrs.field(default=frozenset(), repr=False)
    """The names of all variables, among which a misspelt one may be."""
    hint: str = ""
    """What to do where a database is not one of this program's."""

    def put(self, name: str, path: Path, value: object, origin: str) -> None:
        """Note one value; secrets are masked from here on."""
        *sections, last = path
        table = self.databases.setdefault(name, {})
        for section in sections:
            inner = table.setdefault(section, {})
            if not isinstance(inner, dict):  # a file has ``pool = 5``: ``structure`` reports it
                return
            table = cast("dict[str, object]", inner)
        is_secret = last in {"url", "replicas"} or is_secret_key(last)
        hidden = isinstance(value, str) and is_secret and path[0] != OPTIONS
        table[last] = Secret(value) if hidden and isinstance(value, str) else value
        self.origins[name, ".".join(path)] = origin


@attrs.frozen
class Configuration:
    """The databases that are configured, and where every value came from."""

    databases: Mapping[str, DatabaseSettings] = attrs.field(factory=dict[str, DatabaseSettings])
    factories: Mapping[str, str] = attrs.field(factory=dict[str, str])
    """Custom kinds, by database: an entry point's name or a dotted path."""
    origins: Mapping[tuple[str, str], str] = attrs.field(factory=dict[tuple[str, str], str])
    places: tuple[Place, ...] = (Place("mapping"),)
    """What was read, in the order in which a person would look for a missing database."""
    empty: frozenset[str] = frozenset()
    variables: frozenset[str] = attrs.field(default=frozenset(), repr=False)
    warnings: tuple[str, ...] = ()
    """What the sources have that is probably not what was meant."""

    def missing(self, name: str, known: tuple[str, ...] = ()) -> str:
        """Return the sentence that says how to configure ``name``, with a near name if there is."""
        ways = ", or ".join(place.way_to_add(name) for place in self.places)
        hint = near(name, {other: other for other in known})
        variable = variable_for(name)
        blank = f" ({variable} is set, but empty)" if variable in self.empty else ""
        slip = _misspelt(variable, self.variables)
        return f"Database {name!r} is not configured: {ways}{blank}{slip}{hint}"

    def traced(self, name: str, error: SettingsError) -> SettingsError:
        """Return the error of building ``name``, with its path and origin in this configuration."""
        return SettingsError([_traced(name, fault, self.origins) for fault in error.faults])


def variable_for(name: str, path: str = "url") -> str:
    """Return the variable that sets ``path`` of a database."""
    prefix = "" if name == DEFAULT else f"{name.upper()}_"
    return f"{prefix}DATABASE_{path.upper().replace('.', '_')}"


def from_settings(databases: Mapping[str, DatabaseSettings]) -> Configuration:
    """Return the configuration of databases whose settings were made in code.

    Raises:
        SettingsError: a name is not allowed, or a value is no ``DatabaseSettings``.
    """
    if as_table(databases) is None:
        problem = "expected a mapping of databases, such as {'default': DatabaseSettings(url)}"
        raise SettingsError([Fault("", problem)])
    faults = [
        Fault(shown(name), _BAD_NAME) for name in databases if not NAME.fullmatch(str(name))
    ] + [
        Fault(str(name), "expected DatabaseSettings: DatabaseSettings(url)")
        for name, settings in databases.items()
        if not isinstance(cast("object", settings), DatabaseSettings)
    ]
    if faults:
        raise SettingsError(faults)
    return Configuration(dict(databases))


def configure(*sources: Source) -> Configuration:
    """Check what the sources hold, later ones winning value by value.

    Raises:
        SettingsError: everything that is wrong with it.
    """
    merged = _merge(sources)
    configuration, built = _build(merged)
    found = [*(fault for source in sources for fault in source.faults), *_misnamed(sources)]
    paths = {fault.path for fault in found}
    faults = [*found, *(fault for fault in built if fault.path not in paths)]
    if faults:
        raise SettingsError(faults)
    return attrs.evolve(
        configuration,
        places=tuple(source.place for source in sources),
        empty=frozenset(merged.empty),
        variables=merged.variables,
        warnings=tuple(warning for source in sources for warning in source.warnings),
    )


def _build(source: Source) -> tuple[Configuration, list[Fault]]:
    faults: list[Fault] = []
    databases: dict[str, DatabaseSettings] = {}
    factories: dict[str, str] = {}
    for name, table in source.databases.items():
        factory = table.pop("factory", None)
        if isinstance(factory, str):
            factories[name] = factory
        elif factory is not None:
            faults.append(Fault(f"{name}.factory", "expected an entry point or a dotted path"))
        variable = variable_for(name)
        absent = f"{variable} is empty" if variable in source.empty else source.place.origin(name)
        try:
            databases[name] = structure(table, DatabaseSettings)
        except SettingsError as error:
            origins = {(name, "url"): absent} | source.origins
            traced = [_traced(name, fault, origins) for fault in error.faults]
            faults += [_with_hint(source, name, fault) for fault in traced]
    return Configuration(databases, factories, source.origins), faults


def _with_hint(source: Source, name: str, fault: Fault) -> Fault:
    # A URL that is missing or foreign may belong to another program in the same environment.
    if fault.path != f"{name}.url":
        return fault
    slip = _misspelt(variable_for(name), source.variables)
    hint = slip or ("" if name == DEFAULT else source.hint)
    return Fault(fault.path, f"{fault.problem}{hint}", fault.origin)


def _misspelt(variable: str, variables: frozenset[str]) -> str:
    """Return a hint at a variable that is set and nearly has the name of the one that counts."""
    slips = sorted(other for other in variables if is_slip(other, variable))
    return f" ({slips[0]} is set, which is not {variable})" if slips else ""


def _merge(sources: tuple[Source, ...]) -> Source:
    merged = Source(sources[-1].place)
    for source in sources:
        merged.empty |= source.empty
        merged.variables |= source.variables
        merged.hint = merged.hint or source.hint
        for name, table in source.databases.items():
            merged.databases.setdefault(name, {})
            for path, value in flat(cast("Table", table)):
                merged.put(name, path, value, source.origins[name, ".".join(path)])
    return merged


def _misnamed(sources: tuple[Source, ...]) -> list[Fault]:
    faults = [
        Fault(shown(name), _BAD_NAME, source.place.kind)
        for source in sources
        for name in source.databases
        if not NAME.fullmatch(name)
    ]
    for source in sources:
        variables = {v for (name, _), v in source.origins.items() if name == DEFAULT}
        plain = sorted(v for v in variables if v.startswith("DATABASE_"))
        long = sorted(v for v in variables if v.startswith("DEFAULT_DATABASE_"))
        if source.place.kind == "environment" and plain and long:
            problem = f"{plain[0]} and {long[0]} configure the same database; use one prefix"
            faults.append(Fault(DEFAULT, problem, source.place.kind))
    return faults


def _traced(name: str, fault: Fault, origins: Mapping[tuple[str, str], str]) -> Fault:
    setting = fault.path.partition("[")[0]  # one of several replicas
    origin = origins.get((name, setting))
    if origin is None and setting in OWN_TABLES:  # a fault of the table has the origin of its keys
        below = f"{setting}."
        keys = {v for (db, path), v in origins.items() if db == name and path.startswith(below)}
        origin = ", ".join(sorted(keys)) or None
    return under(shown(name), Fault(fault.path, fault.problem, origin))


def flat(table: Table, above: Path = ()) -> Iterator[tuple[Path, object]]:
    """Yield every value of a nested table with its path.

    No deeper than settings go: a table nested further is one value, and is reported as unknown.
    """
    for key, value in table.items():
        path = (*above, str(key))
        inner = as_table(value)
        is_text = inner is not None and all(isinstance(key, str) for key in inner)
        if inner and is_text and path[0] != "url_secrets" and len(path) <= _DEEPEST:
            yield from flat(inner, path)
        else:
            yield path, value
