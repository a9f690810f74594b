"""The public names: listed, typed and loaded alike, and without loading more than is asked for."""

from __future__ import annotations

import ast
import pickle
import subprocess
import sys
import traceback
from importlib import import_module
from pathlib import Path
from typing import Final, Literal, get_origin, get_type_hints

import pytest

import sessionfactory
from sessionfactory import (
    DatabaseSettings,
    Fault,
    Health,
    PoolSettings,
    PoolStatus,
    SettingsError,
)

SOURCE: Final = Path(sessionfactory.__file__)
HEAVY: Final = ("attr", "attrs", "sqlalchemy")


def typed_names() -> dict[str, str]:
    """Return what the type checkers see: the module of each name."""
    tree = ast.parse(SOURCE.read_text())
    (block,) = (
        node
        for node in tree.body
        if isinstance(node, ast.If)
        and isinstance(node.test, ast.Name)
        and node.test.id == "TYPE_CHECKING"
    )
    found: dict[str, str] = {}
    for node in block.body:
        assert isinstance(node, ast.ImportFrom)
        for alias in node.names:
            assert alias.asname is None
            found[alias.name] = (node.module or "").removeprefix("sessionfactory.")
    return found


def run(code: str) -> str:
    """Run code in a fresh interpreter and return what it prints."""
    process = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr
    return process.stdout.strip()


def loaded_after(statement: str) -> str:
    """Return which of the heavy packages a statement loads, in a fresh interpreter."""
    return run(
        f"{statement}\nimport sys\nprint(*(name for name in {HEAVY} if name in sys.modules))"
    )


def test_all_and_the_types_and_the_lazy_table_agree() -> None:
    """A name that is listed is typed, and loaded from where the type checkers see it."""
    assert typed_names() == sessionfactory._HOMES
    assert set(sessionfactory.__all__) == set(sessionfactory._HOMES)


def test_all_is_sorted_and_says_nothing_twice() -> None:
    """The list of public names can be read by a person."""
    assert sessionfactory.__all__ == sorted(set(sessionfactory.__all__))


@pytest.mark.parametrize("name", sessionfactory.__all__)
def test_a_public_name_is_what_its_module_defines(name: str) -> None:
    """A lazy name is the very object of its module, each time, and is defined there."""
    home = import_module(f"sessionfactory.{sessionfactory._HOMES[name]}")

    found = getattr(sessionfactory, name)

    assert found is getattr(home, name)
    assert getattr(sessionfactory, name) is found
    if isinstance(found, type):
        assert found.__module__ == "sessionfactory"


@pytest.mark.parametrize("name", sessionfactory.__all__)
def test_a_public_name_says_what_it_is(name: str) -> None:
    """Every public name has a docstring of its own."""
    found = getattr(sessionfactory, name)
    documentation = found.__doc__ or ""

    assert (
        get_origin(found) is Literal
        or documentation[:1].isupper()
        or documentation.startswith("``")
    )


def test_dir_lists_what_has_not_been_loaded_yet() -> None:
    """Completion in a shell shows every public name in a fresh interpreter."""
    names = run("import sessionfactory\nprint(*dir(sessionfactory))").split()

    assert set(sessionfactory.__all__) <= set(names)
    assert "__version__" in names
    assert names == sorted(names)


def test_an_unknown_name_is_an_ordinary_error() -> None:
    """A misspelt name gives the error that a module without lazy names gives."""
    message = "module 'sessionfactory' has no attribute 'SesionFactory'"

    with pytest.raises(AttributeError, match=message):
        getattr(sessionfactory, "SesionFactory")  # noqa: B009 - type checkers refuse the attribute
    with pytest.raises(ImportError, match="cannot import name 'SesionFactory'"):
        exec("from sessionfactory import SesionFactory")


@pytest.mark.parametrize(
    "statement",
    [
        "import sessionfactory",
        "from sessionfactory import SessionFactory, NullSessionFactory, NotConfiguredError",
        "from sessionfactory import Health, Holder, PoolStatus, ClosedError, SettingsError",
        "from sessionfactory import __version__",
    ],
)
def test_light_names_load_nothing_heavy(statement: str) -> None:
    """A service that knows the interface only loads neither SQLAlchemy nor attrs."""
    assert loaded_after(statement) == ""


def test_the_null_factory_works_without_anything_heavy() -> None:
    """The guard of a unit test costs no import of SQLAlchemy, even when it strikes."""
    code = """from sessionfactory import NotConfiguredError, NullSessionFactory
try:
    NullSessionFactory("no database").begin()
except NotConfiguredError:
    pass
"""
    assert loaded_after(code) == ""


def test_a_heavy_name_loads_what_it_needs() -> None:
    """The test above would be of no worth if it could not see a package being loaded."""
    assert loaded_after("from sessionfactory import SqlAlchemySessionFactory") == " ".join(HEAVY)


def test_a_star_import_works() -> None:
    """`from sessionfactory import *` gives exactly the public names."""
    names = run(
        "before = set(globals())\nfrom sessionfactory import *\n"
        "print(*sorted(set(globals()) - before - {'before'}))"
    )

    assert names.split() == sessionfactory.__all__


@pytest.mark.parametrize("name", sessionfactory.__all__)
def test_a_public_name_can_be_pickled_by_reference(name: str) -> None:
    """A pickle finds each public class and function under the name that users import."""
    found = getattr(sessionfactory, name)
    if get_origin(found) is Literal:
        return

    assert pickle.loads(pickle.dumps(found)) is found


def test_errors_and_values_survive_a_pickle() -> None:
    """What a worker process raises or returns arrives as it was."""
    error = SettingsError([Fault("default.url", "is missing", "DATABASE_URL")])
    health = Health("ok", 0.25, "well")

    copy = pickle.loads(pickle.dumps(error))

    assert type(copy) is SettingsError
    assert copy.faults == error.faults
    assert pickle.loads(pickle.dumps(health)) == health


def test_a_traceback_shows_the_public_name() -> None:
    """An error is named as users import and catch it."""
    error = SettingsError([Fault("", "wrong")])

    assert traceback.format_exception_only(error)[0].startswith("sessionfactory.SettingsError: ")


@pytest.mark.parametrize("cls", [DatabaseSettings, PoolSettings, Fault, Health, PoolStatus])
def test_the_annotations_of_values_can_be_read(cls: type[object]) -> None:
    """Tools that build values from their annotations find every type."""
    hints = get_type_hints(cls)

    assert hints
    assert not any(isinstance(hint, str) for hint in hints.values())


@pytest.mark.parametrize("package", ["sessionfactory", "sessionfactory.testing"])
def test_tab_completion_shows_every_name(package: str) -> None:
    """``dir()`` lists what is loaded on first use."""
    module = import_module(package)
    assert set(module.__all__) <= set(dir(module))


def test_loading_leaves_the_garbage_collector_as_it_was() -> None:
    """Names are loaded without garbage collection, which is on or off afterwards as before."""
    code = (
        "import gc\n{}\nfrom sessionfactory import SqlAlchemySessionFactory\nprint(gc.isenabled())"
    )

    assert run(code.format("gc.enable()")) == "True"
    assert run(code.format("gc.disable()")) == "False"
