"""Local stubs: only for what we import and what has no types of its own."""

from __future__ import annotations

import ast
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[1]
TYPINGS: Final = ROOT / "typings"
NEVER: Final = frozenset({"attr", "attrs", "_pytest", "pytest", "sqlalchemy"})
OURS: Final = ("sessionfactory", "tests", "benchmarks", "examples")


@cache
def imported() -> set[str]:
    """Return the packages that anything of ours imports."""
    found: set[str] = set()
    for folder in OURS:
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Import):
                    found.update(alias.name.partition(".")[0] for alias in node.names)
                elif isinstance(node, ast.ImportFrom) and node.level == 0:
                    found.add((node.module or "").partition(".")[0])
    return found


def ships_types(package: str) -> bool:
    """Say whether the installed package has types of its own."""
    spec = find_spec(package)
    places = (spec and spec.submodule_search_locations) or []
    return any((Path(place) / "py.typed").exists() for place in places)


def faults(typings: Path, used: set[str]) -> list[str]:
    """Return what is wrong with a folder of stubs."""
    readme = (typings / "README.md").read_text()
    found: list[str] = []
    for path in sorted(typings.iterdir()):
        package = path.stem
        if path.name == "README.md":
            continue
        if package in NEVER:
            found.append(f"{package} never gets a stub")
        elif package not in used:
            found.append(f"nothing of ours imports {package}")
        elif ships_types(package):
            found.append(f"{package} ships py.typed")
        if f"\n| `{package}` | " not in readme:
            found.append(f"typings/README.md has no row for {package}")
    return found


def test_every_stub_is_needed() -> None:
    """A stub that is not needed any more fails here, and is removed."""
    assert faults(TYPINGS, imported()) == []


@pytest.mark.parametrize(
    ("stub", "fault"),
    [
        ("sqlalchemy", "sqlalchemy never gets a stub"),
        ("attrs", "attrs never gets a stub"),
        ("pytest", "pytest never gets a stub"),
        ("unheard_of", "nothing of ours imports unheard_of"),
        ("stamina", "stamina ships py.typed"),
    ],
)
def test_a_stub_that_is_not_needed_is_seen(tmp_path: Path, stub: str, fault: str) -> None:
    """The rule strikes for each reason, whether the stub is a folder or a file."""
    (tmp_path / "README.md").write_text(f"# Stubs\n\n| `{stub}` | 1.0 | some day |\n")
    (tmp_path / stub).mkdir()
    assert faults(tmp_path, imported()) == [fault]

    (tmp_path / stub).rmdir()
    (tmp_path / f"{stub}.pyi").touch()
    assert faults(tmp_path, imported()) == [fault]


def test_a_stub_without_a_row_is_seen(tmp_path: Path) -> None:
    """A needed stub passes if the README tells its version and its end, and not without."""
    (tmp_path / "nodeenv").mkdir()
    (tmp_path / "README.md").write_text("# Stubs\n")
    assert faults(tmp_path, {"nodeenv"}) == ["typings/README.md has no row for nodeenv"]

    (tmp_path / "README.md").write_text("# Stubs\n\n| `nodeenv` | 1.9 | it has types |\n")
    assert faults(tmp_path, {"nodeenv"}) == []
