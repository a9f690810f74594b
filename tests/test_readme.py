"""Every Python example of the README runs, and says what the README says it says."""

from __future__ import annotations

import os
import re
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import event
from sqlalchemy.pool import Pool
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

if TYPE_CHECKING:
    from collections.abc import Generator

README = Path(__file__).parent.parent / "README.md"
LONGEST = 150
"""Lines of the README; what is longer belongs into docs/."""


@pytest.fixture
def left_open() -> Generator[None]:
    """Close what the examples' plain engines leave open, of which Python 3.13 warns."""
    opened: list[object] = []

    def note(connection: object, _record: object) -> None:
        opened.append(connection)

    event.listen(Pool, "connect", note)
    yield
    event.remove(Pool, "connect", note)
    for connection in opened:
        if isinstance(connection, sqlite3.Connection):
            connection.close()


@pytest.mark.usefixtures("left_open")
def test_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The examples run in order, in an empty directory."""
    monkeypatch.chdir(tmp_path)
    document = Sybil(parsers=[PythonCodeBlockParser()]).parse(README)
    examples = list(document.examples())
    for example in examples:
        example.evaluate()
    assert len(examples) > 2


def test_first_code_stands_early() -> None:
    """The first example begins by line 25."""
    lines = README.read_text(encoding="utf-8").splitlines()
    assert lines.index("```python") < 25


def test_it_is_short_and_leads_on() -> None:
    """The README is read in one go, and the pages that it names are there."""
    text = README.read_text(encoding="utf-8")
    pages = re.findall(r"\]\(([^):]+)\)", text)

    assert len(text.splitlines()) <= LONGEST
    assert pages
    assert [page for page in pages if not (README.parent / page).exists()] == []


def test_commands_exist() -> None:
    """The make targets that the README names are there."""
    makefile = (README.parent / "Makefile").read_text(encoding="utf-8")
    named = {
        line.split()[2] for line in README.read_text().splitlines() if line.startswith("$ make ")
    }
    assert named == {"demo", "test"}
    assert all(f"\n{target}: " in makefile for target in named)
    assert os.access(README.parent / ".ci" / "run", os.X_OK)
