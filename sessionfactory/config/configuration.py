"""What the sources said: merged, checked, and remembered with where each value came from."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final, TypeAlias, TypeVar, cast

import attrs

from sessionfactory.config.masking import Secret, is_secret_key
from sessionfactory.config.settings import DatabaseSettings
from sessionfactory.config.validation import structure, under
from sessionfactory.config.values import Table, as_table, near, shown
from sessionfactory.errors import Fault, SettingsError

V = TypeVar("V")
DEFAULT: Final = "default"
NAME: Final = re.compile(r"[a-z][a-z0-9_]*")
NO_TEXT: Final = frozenset({"engine_options", "url_secrets"})
"""Settings that are tables of their own, whose keys are no settings."""
_DEEPEST: Final = 2
_BAD_NAME: Final = "expected a name of a-z, 0-9 and _, beginning with a letter"


class Masked(Mapping[str, V]):
    """A mapping whose values no traceback shows, for it stands in the frames that read it."""

    def __init__(self, given: Mapping[str, V]) -> None:
        self._given = given

    def __getitem__(self, key: str) -> V:
        return self._given[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._given)

    def __len__(self) -> int:
        return len(self._given)

    def __repr__(self) -> str:
        return f"<{len(self)} masked values>"


Path: TypeAlias = tuple[str, ...]


def mask(given: Mapping[str, V]) -> Mapping[str, V]:
    """Mask a mapping; what is none is returned as it is, for the reader to refuse."""
    return given if as_table(given) is None else Masked(given)


@attrs.frozen
class Place:
    """Where a configuration stands, and how a person would add a database to it."""

    kind: str
    """``"environment"``, ``"mapping"`` or the name of a file."""
    tables: str = "databases."
    """What stands before a database's name in the header of its table."""

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
    """What one source says, before it is checked: values by database, and their origins."""

    place: Place
    databases: dict[str, dict[str, object]] = attrs.field(
        factory=dict[str, dict[str, object]], repr=False
    )
    origins: dict[tuple[str, str], str] = attrs.field(factory=dict[tuple[str, str], str])
    faults: list[Fault] = attrs.field(factory=list[Fault])
    empty: set[str] = attrs.field(factory=set[str])
    """Names of variables that are set to nothing."""

    def put(self, name: str, path: Path, value: object, origin: str) -> None:
        """Note one value; secrets are masked from here on."""
        *sections, last = path
        table = self.databases.setdefault(name, {})
        for section in sections:
            inner = table.setdefault(section, {})
            if not isinstance(inner, dict):  # a file says ``pool = 5``: ``structure`` will tell
                return
            table = cast("dict[str, object]", inner)
        secret = isinstance(value, str) and (last in {"url", "replicas"} or is_secret_key(last))
        table[last] = Secret(value) if secret and isinstance(value, str) else value
        self.origins[name, ".".join(path)] = origin


@attrs.frozen
class Configuration:
    """The databases that were configured, and where every value came from."""

    databases: Mapping[str, DatabaseSettings] = attrs.field(factory=dict[str, DatabaseSettings])
    factories: Mapping[str, str] = attrs.field(factory=dict[str, str])
    """Custom kinds, by database: an entry point's name or a dotted path."""
    origins: Mapping[tuple[str, str], str] = attrs.field(factory=dict[tuple[str, str], str])
    places: tuple[Place, ...] = (Place("mapping"),)
    """What was read, in the order in which a person would look for a missing database."""
    empty: frozenset[str] = frozenset()

    def missing(self, name: str, known: tuple[str, ...] = ()) -> str:
        """Return the sentence that says how to configure ``name``, with a near name if there is."""
        ways = ", or ".join(place.way_to_add(name) for place in self.places)
        hint = near(name, {other: other for other in known})
        variable = variable_for(name)
        blank = f" ({variable} is set, but empty)" if variable in self.empty else ""
        return f"Database {name!r} is not configured: {ways}{blank}{hint}"

    def traced(self, name: str, error: SettingsError) -> SettingsError:
        """Return the error of building ``name``, with its path and origin in this configuration."""
        return SettingsError([_traced(name, fault, self.origins) for fault in error.faults])


def variable_for(name: str, path: str = "url") -> str:
    """Return the variable that sets ``path`` of a database."""
    prefix = "" if name == DEFAULT else f"{name.upper()}_"
    return f"{prefix}DATABASE_{path.upper().replace('.', '_')}"


def from_settings(databases: Mapping[str, DatabaseSettings]) -> Configuration:
    """Return the configuration of databases whose settings code made.

    Raises:
        SettingsError: a name is no name, or a value no settings.
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
    """Check what the sources say, later ones winning value by value.

    Raises:
        SettingsError: everything that is wrong with it.
    """
    merged = _merge(sources)
    configuration, built = _build(merged)
    told = [*(fault for source in sources for fault in source.faults), *_misnamed(sources)]
    paths = {fault.path for fault in told}
    faults = [*told, *(fault for fault in built if fault.path not in paths)]
    if faults:
        raise SettingsError(faults)
    return attrs.evolve(
        configuration,
        places=tuple(source.place for source in sources),
        empty=frozenset(merged.empty),
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
            faults += [_traced(name, fault, origins) for fault in error.faults]
    return Configuration(databases, factories, source.origins), faults


def _merge(sources: tuple[Source, ...]) -> Source:
    merged = Source(sources[-1].place)
    for source in sources:
        merged.empty |= source.empty
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
            problem = f"{plain[0]} and {long[0]} speak of the same database; use one prefix"
            faults.append(Fault(DEFAULT, problem, source.place.kind))
    return faults


def _traced(name: str, fault: Fault, origins: Mapping[tuple[str, str], str]) -> Fault:
    setting = fault.path.partition("[")[0]  # one of several replicas
    return under(shown(name), Fault(fault.path, fault.problem, origins.get((name, setting))))


def flat(table: Table, above: Path = ()) -> Iterator[tuple[Path, object]]:
    """Yield every value of a nested table with its path.

    No deeper than settings go: a table nested further is one value, and will be told as unknown.
    """
    for key, value in table.items():
        path = (*above, str(key))
        inner = as_table(value)
        if inner and path[0] not in NO_TEXT and len(path) <= _DEEPEST:
            yield from flat(inner, path)
        else:
            yield path, value
