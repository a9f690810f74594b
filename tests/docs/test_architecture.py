"""The page on the architecture names what is there."""

from __future__ import annotations

import ast
import re
from typing import Final

import pytest

from tests.docs.pages import DOCS, ROOT

PAGE: Final = (DOCS / "architecture.md").read_text(encoding="utf-8")
PACKAGE: Final = ROOT / "sessionfactory"
IN_RECIPES: Final = frozenset({"drivers/known/quicksql.py"})
"""Files that a recipe has its reader make."""
OF_SQLALCHEMY: Final = frozenset({"Dialect.connect", "session.commit"})
PLACES: Final = sorted(
    set(re.findall(r"`((?:\w+/)+(?:\w+\.py)?|\w+\.py)`", PAGE)) - IN_RECIPES - {"_async/"}
)
METHODS: Final = sorted(set(re.findall(r"`(\w+\.\w+)`", PAGE)) - OF_SQLALCHEMY)


def defined() -> set[str]:
    """Return the methods of all classes of the package, with their class."""
    found: set[str] = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                for inner in node.body:
                    if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef):
                        found.add(f"{node.name}.{inner.name}")
    return found


DEFINED: Final = defined()
CLASSES: Final = {name.partition(".")[0] for name in DEFINED}


@pytest.mark.parametrize("place", PLACES)
def test_every_place_that_is_named_is_there(place: str) -> None:
    """A file or folder of the page is in the package, or in the repository."""
    assert (PACKAGE / place).exists() or (ROOT / place).exists()


@pytest.mark.parametrize("method", METHODS)
def test_every_call_of_the_walks_is_there(method: str) -> None:
    """A method of the page is defined, in a class of that name."""
    if method.endswith(".py") or method.partition(".")[0] not in CLASSES:
        assert not method[0].isupper(), f"there is no class {method.partition('.')[0]}"
        return
    assert method in DEFINED


def test_every_room_is_on_the_page() -> None:
    """Each folder of the package has its line among the rooms."""
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}

    assert rooms
    assert {room for room in rooms if f"  {room}/ " not in PAGE} == set()
