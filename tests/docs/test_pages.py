"""Every block of the documentation works as its page shows."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

from tests.docs.pages import DOCS, LANGUAGES, PAGES, Page, languages

if TYPE_CHECKING:
    from pathlib import Path

TUTORIAL = DOCS / "tutorial" / "index.md"
# What a page is about, if it is another package: the group ``integrations`` installs them.
PACKAGES = {
    "aiohttp": ("aiohttp",),
    "arq": ("arq", "fakeredis"),
    "celery": ("celery",),
    "dependency-injector": ("dependency_injector",),
    "dramatiq": ("dramatiq",),
    "polyfactory": ("polyfactory",),
    "rq": ("rq", "fakeredis"),
    "sqladmin": ("sqladmin",),
    "sqlmodel": ("sqlmodel",),
    "strawberry": ("strawberry",),
    "taskiq": ("taskiq",),
}


def name_of(page: Path) -> str:
    """Return a page's name for a test."""
    return page.relative_to(DOCS).as_posix()


@pytest.mark.filterwarnings("ignore:Call to deprecated close:DeprecationWarning")  # by arq
@pytest.mark.usefixtures("left_open")
@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_block_does_what_it_says(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The examples run in order, configurations are accepted, and commands exist.

    The commands of the tutorial are run one after the other, as a reader does: migrations are
    written, a PostgreSQL is started, and its tests pass.
    """
    for package in PACKAGES.get(page.stem, ()):
        pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    before = dict(os.environ)

    Page(page, tmp_path, runs_commands=page == TUTORIAL).check()

    for variable in set(os.environ) - set(before):
        monkeypatch.delenv(variable)
    for name, module in [*sys.modules.items()]:  # a page's own, which another page may have as well
        if str(getattr(module, "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_block_is_of_a_kind_that_is_checked(page: Path) -> None:
    """A block in a language that no check knows fails."""
    assert languages(page) <= LANGUAGES


def test_there_are_pages_for_every_need() -> None:
    """Start, tutorial, how-to, explanation and reference have pages."""
    folders = {page.relative_to(DOCS).parts[0] for page in PAGES}

    assert {"start", "tutorial", "how-to", "explanation", "reference"} <= folders
