"""The floors of the package: a module imports from its own floor or a lower one, never upwards."""

from __future__ import annotations

import ast
import re
from fnmatch import fnmatchcase
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE: Final = Path(__file__).parents[1] / "sessionfactory"
ROOT: Final = PACKAGE.name

# From the ground up; a module without a name here belongs on no floor, and fails.
FLOORS: Final = (
    ("errors", "_lazy", "clock"),
    ("interfaces", "status", "null", "pool_errors"),
    ("config", "config.*"),
    ("drivers", "drivers.*"),
    ("pool", "pool.*"),
    ("engine", "engine.*"),
    ("sessions", "sessions.*"),
    ("transactions", "transactions.*"),
    ("registry", "registry.*"),
    ("ext", "ext.*"),
    ("cli", "cli_output", "__main__", "testing", "testing.*", "pytest_plugin"),
    ("",),  # the package itself, which re-exports; no module inside imports from it
)
# Inside a room of more than ten modules, from the ground up: a module imports from the rows before
# its own. A room within a room is one entry.
ORDERS: Final = {
    "config": (
        ("files", "hide_arguments", "masking", "removed"),
        ("rotating_secret", "values"),
        ("validation",),
        ("settings",),
        ("configuration",),
        ("environment",),
        ("sources",),
    ),
    "drivers": (
        ("asyncio_ext", "families", "sqlalchemy_private", "transport"),
        ("commit_stage", "driver", "fork_gate", "server_limit"),
        ("libpq", "pymysql_like"),
        ("known",),
        ("connections", "dialects", "error_codes"),
        ("failed_transactions", "psycopg_pipeline", "server_processes", "tls"),
    ),
    "drivers.known": (
        ("aiomysql", "asyncmy", "asyncpg", "mysqlclient", "mysqlconnector", "oracledb", "pg8000"),
        ("psycopg", "psycopg2", "pymysql", "pyodbc", "sqlite3"),
        ("aiosqlite", "sqlcipher"),
    ),
    "pool": (
        ("call_sites", "connection_settings", "owners", "session_reset", "wait_queue"),
        ("ledger", "pool_entry", "shielded"),
        ("deadlocks", "leak_warnings", "waiting"),
        ("connector", "liveness"),
        ("tracked",),
        ("fair",),
        ("loop_bound",),
    ),
    "engine": (
        ("credentials", "dialect_hooks", "drain", "sqlite_begin", "timeouts"),
        ("creators", "forks", "sqlite", "views"),
        ("arguments", "failover", "pgbouncer", "ping"),
        ("connect",),
        ("managed",),
    ),
}
MOST_MODULES: Final = 16
ORDERED_FROM: Final = 11
MOST_LINES: Final = 320
# Files that are longer, and how they are going to divide.
LONGER: Final = {
    "drivers.error_codes": "the table apart from the functions that read it",
    "sessions.guarded_session": "the guard apart from what is made up for afterwards",
    "testing.servers._keeper": "the process apart from the sweeping of what others left",
}
# Rooms whose ``__init__`` holds more than a sentence, and why.
EXPORTING: Final = {
    "": "the public names, loaded on first use",
    "testing": "the public names, loaded on first use",
    "drivers.known": "the tables that find a driver's module",
}
# What every pytest run of every user may load must stay light, and what a service depends on, too.
LIGHT: Final = frozenset({"", "_lazy", "errors", "interfaces", "status", "null"})
HEAVY: Final = frozenset({"attr", "attrs", "sqlalchemy"})
TYPE_ONLY: Final = frozenset({("interfaces", "sqlalchemy")})
NO_NAMES: Final = frozenset({"utils", "util", "base", "helpers", "helper", "common", "misc"})


@frozen
class Import:
    """One import statement's target, as it is written in a module."""

    module: str
    """Who imports, without the package's name; the package itself is the empty text."""
    target: str
    """What is imported, with the package's name."""
    line: int
    type_only: bool

    def __str__(self) -> str:
        return f"{self.module or ROOT}:{self.line} imports {self.target}"


def name_of(path: Path) -> str:
    """Return a module's name without the package's."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


PATHS: Final = {
    name_of(path): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if "_alembic_templates" not in path.parts  # copied into users' projects, and never imported
}


def is_type_checking(node: ast.AST) -> bool:
    """Say whether a statement is ``if TYPE_CHECKING:``."""
    return (
        isinstance(node, ast.If)
        and isinstance(node.test, ast.Name)
        and node.test.id == "TYPE_CHECKING"
    )


def imports_of(module: str, source: str) -> list[Import]:
    """Return every import of a module: at its top, type-only, and inside functions."""
    found: list[Import] = []

    def visit(node: ast.AST, *, type_only: bool) -> None:
        type_only = type_only or is_type_checking(node)
        if isinstance(node, ast.Import | ast.ImportFrom):
            found.extend(
                Import(module, target, node.lineno, type_only)
                for target in targets_of(module, node)
            )
        for child in ast.iter_child_nodes(node):
            visit(child, type_only=type_only)

    visit(ast.parse(source), type_only=False)
    return found


def targets_of(module: str, node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    """Yield the modules that a statement imports; ``from a import b`` may mean the module a.b."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
        return
    relative = module.startswith("testing.proxy._engine")  # runs by itself, without the package
    assert relative or not node.level, f"{module}:{node.lineno} is relative"
    above = f"{ROOT}.{module.rpartition('.')[0]}." if node.level else ""
    base = above + (node.module or "")
    for alias in node.names:
        full = f"{base}.{alias.name}"
        is_module = full.partition(".")[0] == ROOT and full.partition(".")[2] in PATHS
        yield full if is_module else base


IMPORTS: Final = [
    found for name, path in PATHS.items() for found in imports_of(name, path.read_text())
]
OURS: Final = [found for found in IMPORTS if found.target.partition(".")[0] == ROOT]


def floor_of(module: str) -> int | None:
    """Return the floor that a module is on."""
    for floor, patterns in enumerate(FLOORS):
        if any(fnmatchcase(module, pattern) for pattern in patterns):
            return floor
    return None


def inner(found: Import) -> str:
    """Return which of our modules is imported."""
    return found.target.partition(".")[2]


def test_every_module_is_on_a_floor() -> None:
    """A new module needs a line in the table, where a reviewer sees it."""
    assert [module for module in PATHS if floor_of(module) is None] == []


def test_contributors_read_the_same_table() -> None:
    """The table in CONTRIBUTING.md is this one, but for the package itself, which has no row."""
    text = (PACKAGE.parent / "CONTRIBUTING.md").read_text()
    rows = re.findall(r"^\| (\d+) \| ([^|]+) \|", text, re.MULTILINE)
    told = [(int(floor), name) for floor, names in rows for name in re.findall("`(.+?)`", names)]
    assert sorted(told) == sorted(
        (floor, f"{name}/" if f"{name}.*" in patterns else name)
        for floor, patterns in enumerate(FLOORS[:-1])
        for name in patterns
        if not name.endswith(".*")
    )


@pytest.mark.parametrize("pattern", [pattern for patterns in FLOORS for pattern in patterns])
def test_every_row_of_the_table_is_used(pattern: str) -> None:
    """A row for a module that is gone fails."""
    assert any(fnmatchcase(module, pattern) for module in PATHS)


def test_nothing_imports_upwards() -> None:
    """Every import leads to the same floor or a lower one, type-only and local ones included."""
    upwards = [
        str(found)
        for found in OURS
        if (floor_of(inner(found)) or 0) > (floor_of(found.module) or 0)
    ]

    assert upwards == []


def rooms() -> dict[str, list[str]]:
    """Return the modules of each room, ``__init__`` not counted; the ground has the empty name."""
    found: dict[str, list[str]] = {}
    for module, path in PATHS.items():
        if path.name != "__init__.py":
            room, _, name = module.rpartition(".")
            found.setdefault(room, []).append(name)
    return found


def entry_of(room: str, module: str) -> str:
    """Return a module's entry in the order of a room: its own name, or that of its inner room."""
    return module.removeprefix(f"{room}.").partition(".")[0] if module != room else ""


def test_no_room_is_a_hall() -> None:
    """A room has at most sixteen modules: where it grows, it divides by concepts."""
    sizes = {room: len(modules) for room, modules in rooms().items()}
    assert {room: size for room, size in sizes.items() if size > MOST_MODULES} == {}


def test_no_file_is_too_long() -> None:
    """A file has at most 320 lines; one that is longer is listed, until it has divided."""
    long = {
        module
        for module, path in PATHS.items()
        if len(path.read_text(encoding="utf-8").splitlines()) > MOST_LINES
    }
    assert long <= LONGER.keys()


def test_every_large_room_has_an_order() -> None:
    """A room of more than ten modules has a table of rows, which names each of its modules once."""
    large = {room for room, modules in rooms().items() if room and len(modules) >= ORDERED_FROM}
    large -= {"testing.proxy._engine"}  # a program of its own, with relative imports
    assert large <= ORDERS.keys()
    for room, rows in ORDERS.items():
        inside = {entry_of(room, module) for module in PATHS if module.startswith(f"{room}.")}
        assert sorted(name for row in rows for name in row) == sorted(inside), room


def test_large_rooms_are_in_order() -> None:
    """Inside a large room, a module imports only from the rows below its own."""
    row_of = {
        (room, name): number
        for room, rows in ORDERS.items()
        for number, row in enumerate(rows)
        for name in row
    }
    against = [
        str(found)
        for room in ORDERS
        for found in OURS
        if found.module.startswith(f"{room}.")
        and inner(found).startswith(f"{room}.")
        and (importer := entry_of(room, found.module)) != (target := entry_of(room, inner(found)))
        and row_of[room, importer] <= row_of[room, target]
    ]

    assert against == []


def test_every_room_says_what_it_is_for() -> None:
    """A room's ``__init__`` begins with one sentence on one line, and few rooms have more in it."""
    for module, path in PATHS.items():
        if path.name != "__init__.py":
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        summary = (ast.get_docstring(tree) or "").partition("\n\n")[0]
        assert re.fullmatch(r"[A-Z][^\n.]*(?:\.\w[^\n.]*)*\.", summary), f"{module}: {summary!r}"
        assert (len(tree.body) > 1) == (module in EXPORTING), module


def test_there_are_no_cycles() -> None:
    """The modules can be put into an order in which each needs only those before it."""
    graph: dict[str, set[str]] = {}
    for found in OURS:
        graph.setdefault(found.module, set()).add(inner(found))

    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(" → ".join(error.args[1]))


def test_nobody_imports_the_package_itself() -> None:
    """The lazy names are for users; inside, a name is imported from where it is defined."""
    assert [str(found) for found in OURS if found.target == ROOT] == []


def test_light_modules_import_nothing_heavy() -> None:
    """The interface, errors, values and null factory need neither SQLAlchemy nor attrs."""
    heavy = [
        str(found)
        for found in IMPORTS
        if found.module in LIGHT
        and found.target.partition(".")[0] in HEAVY
        and not (found.type_only and (found.module, found.target.partition(".")[0]) in TYPE_ONLY)
    ]

    assert heavy == []


def test_light_modules_import_only_light_ones() -> None:
    """What a light module loads of ours is light as well."""
    loaded = [str(found) for found in OURS if found.module in LIGHT and not found.type_only]

    assert [text for text in loaded if text.rpartition(f"{ROOT}.")[2] not in LIGHT] == []


@pytest.mark.parametrize(("module", "target"), sorted(TYPE_ONLY))
def test_every_exemption_is_used(module: str, target: str) -> None:
    """An exemption that nothing needs any more fails."""
    assert any(
        found.module == module and found.target.partition(".")[0] == target for found in IMPORTS
    )


def test_the_sessions_know_no_configuration() -> None:
    """A factory is made from settings; who read them from where is not its business."""
    sources = {"configuration", "environment", "sources"}
    readers = [
        str(found) for found in OURS if found.module == "_sync" or found.module.startswith("engine")
    ]

    assert [text for text in readers if text.rpartition(".")[2] in sources] == []


@pytest.mark.parametrize("module", [module for module in PATHS if module])
def test_a_module_is_named_after_what_it_holds(module: str) -> None:
    """There is no drawer for odds and ends."""
    assert not NO_NAMES & set(module.split("."))


def test_the_reader_of_imports_sees_all_of_them() -> None:
    """Type-only and function-local imports are found, and a submodule is told from a name."""
    source = """
if TYPE_CHECKING:
    from sqlalchemy.orm import Session

def local():
    import tomllib
    from sessionfactory import errors, SessionFactory
    from sessionfactory.pool_errors import PoolExhaustedError
"""
    found = [(item.target, item.type_only) for item in imports_of("", source)]

    assert found == [
        ("sqlalchemy.orm", True),
        ("tomllib", False),
        ("sessionfactory.errors", False),
        ("sessionfactory", False),
        ("sessionfactory.pool_errors", False),
    ]
