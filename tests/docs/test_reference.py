"""The reference is complete: names, errors, settings, and the options of SQLAlchemy."""

from __future__ import annotations

import importlib
import inspect
import re
import typing
from typing import TYPE_CHECKING, Any, Final

import pytest
from attrs import fields
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session, sessionmaker

import sessionfactory
import sessionfactory.testing
from sessionfactory import (
    DatabaseSettings,
    PoolExhaustedError,
    PoolSettings,
    SessionFactoryRegistry,
    SessionSettings,
    SettingsError,
    SqliteSettings,
)
from sessionfactory.ext import alembic
from tests.docs.pages import DOCS

if TYPE_CHECKING:
    from collections.abc import Callable

API: Final = "\n".join(
    path.read_text(encoding="utf-8") for path in (DOCS / "reference" / "api").glob("*.md")
)
OPTIONS: Final = (DOCS / "reference" / "options.md").read_text(encoding="utf-8")
ERRORS: Final = (DOCS / "reference" / "errors.md").read_text(encoding="utf-8")
PUBLIC: Final = [
    *(f"sessionfactory.{name}" for name in sessionfactory.__all__),
    *(f"sessionfactory.testing.{name}" for name in sessionfactory.testing.__all__),
    *(f"sessionfactory.ext.alembic.{name}" for name in alembic.__all__),
]
ONLY_IN_SOME_VERSIONS: Final = frozenset(
    {
        "async_creator",
        "convert_unicode",
        "empty_in_strategy",
        "implicit_returning",
        "skip_autocommit_rollback",
    }
)


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_has_its_entry(name: str) -> None:
    """The API pages have a directive for each public name."""
    assert re.search(rf"^\.\. (auto|py:)\w+:: {re.escape(name)}$", API, re.MULTILINE)


@pytest.mark.parametrize("name", [name for name in PUBLIC if name.endswith(("Error", "Warning"))])
def test_every_error_is_explained(name: str) -> None:
    """The page of errors has a section for each error."""
    last = name.rpartition(".")[2]
    if last == "SessionFactoryError":  # the base of all
        return
    assert re.search(rf"^###? {last}$", ERRORS, re.MULTILINE)


@pytest.mark.parametrize("name", [name for name in PUBLIC if name.endswith("Error")])
def test_a_traceback_leads_to_the_section_of_its_error(name: str) -> None:
    """The address that a traceback ends with is one of a section of that page."""
    package, _, last = name.rpartition(".")
    cls: Any = getattr(importlib.import_module(package), last)
    arguments: list[Any] = ["message"]
    if last == "AfterCommitError":
        arguments.append([ValueError()])
    if last in {"SettingsError", "ConformanceError"}:  # their messages need no page
        return
    for note in getattr(cls(*arguments), "__notes__", []):
        page, _, anchor = str(note).partition("errors.html#")
        assert page == "What to do: https://sessionfactory.readthedocs.io/en/stable/reference/"
        assert re.search(rf"^## {anchor}$", ERRORS, re.MULTILINE | re.IGNORECASE)


def test_an_empty_pool_leads_to_its_page() -> None:
    """The error of an empty pool is among those that lead on; its text is what happened."""
    error = PoolExhaustedError("No connection came free")

    assert str(error) == "No connection came free"
    assert error.__notes__[0].endswith("/reference/errors.html#poolexhaustederror")


def options_of(heading: str) -> set[str]:
    """Return the options in the table of a section."""
    section = OPTIONS.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE))


def parameters(function: Callable[..., object]) -> set[str]:
    """Return the names of a callable's parameters."""
    return set(inspect.signature(function).parameters) - {"self", "kwargs"}


def test_every_option_of_create_engine_has_a_row() -> None:
    """The table has what SQLAlchemy's own signature and documentation list, and nothing else."""
    documented = re.findall(r"^    :param (\w+)", create_engine.__doc__ or "", re.MULTILINE)
    signed = parameters(typing.get_overloads(create_engine)[0])

    assert signed
    assert {*documented, *signed} <= options_of("create_engine")
    assert options_of("create_engine") <= {*documented, *signed, *ONLY_IN_SOME_VERSIONS}


@pytest.mark.parametrize(
    ("heading", "classes"),
    [("sessionmaker", (sessionmaker, async_sessionmaker)), ("Session", (Session, AsyncSession))],
)
def test_every_option_of_sessions_has_a_row(heading: str, classes: tuple[type, ...]) -> None:
    """The tables have what the signatures of both halves list."""
    expected = {name for cls in classes for name in parameters(cls)}

    missing = expected - options_of(heading) - {"kw"} - {"class_"}
    assert missing == set()


def leaves() -> list[str]:
    """Return the paths of all settings, by the classes themselves."""
    parts = {"pool": PoolSettings, "session": SessionSettings, "sqlite": SqliteSettings}
    own = [field.name for field in fields(DatabaseSettings) if field.name not in parts]
    return own + [f"{part}.{field.name}" for part, cls in parts.items() for field in fields(cls)]


@pytest.mark.parametrize("path", leaves())
def test_the_tables_name_variables_that_exist(path: str) -> None:
    """The variable that the tables derive from a setting's path is the one that is read."""
    if path.rpartition(".")[2] in {"engine_options", "url_secrets", "options"}:
        return
    variable = f"DATABASE_{path.upper().replace('.', '_')}"
    environ = {"DATABASE_URL": "sqlite://", variable: "\x00"}

    with pytest.raises(SettingsError, match=variable):
        SessionFactoryRegistry.from_env(environ)
