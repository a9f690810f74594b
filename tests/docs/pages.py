"""The pages of the documentation, and what is done with each kind of block in them.

- ``python``: runs, in order, in one namespace a page. A block whose first line is a comment with a
  file's name (``# app/service.py``) is written to that file, and compiled.
- ``toml``: a configuration that the registry accepts.
- ``console``: the commands of the library exist; a page in ``RUN`` runs all that it can.
- ``ini``, ``sql``, ``text``: shown only.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from doctest import ELLIPSIS
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Final

import attrs
from sybil import Document, Sybil
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser

from sessionfactory import SessionFactoryRegistry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sybil import Example, Region

ROOT: Final = Path(__file__).parents[2]
DOCS: Final = ROOT / "docs"
PAGES: Final = sorted(
    path for path in DOCS.rglob("*.md") if not {"_build"} & set(path.relative_to(DOCS).parts)
)
LANGUAGES: Final = frozenset({"python", "toml", "console", "ini", "sql", "text"})
LIMIT: Final = 50
"""Seconds that one command of a page may take."""
_FILE: Final = re.compile(r"# ((?:\w+/)*\w+\.py)\n")
_BLOCK: Final = re.compile(r"^ *```(\w+)$", re.MULTILINE)
_NOT_RUN: Final = (
    "pip ",
    "export ",
    "mkdir ",
    "uvicorn ",
    "gunicorn ",
    "celery ",
    "python -m venv",
)


@attrs.frozen
class Page:
    """One page, and the folder in which its blocks run."""

    path: Path
    folder: Path
    runs_commands: bool = False
    variables: dict[str, str] = attrs.field(factory=dict[str, str])

    def check(self) -> int:
        """Do with each block what is to be done; return how many there were."""
        document = self._sybil().parse(self.path)
        # A module: libraries look up the one in which a function or class was defined.
        module = sys.modules["page"] = ModuleType("page")
        document.namespace = vars(module)
        examples = list(document.examples())
        for example in examples:
            example.evaluate()
        return len(examples)

    def _sybil(self) -> Sybil:
        return Sybil(
            parsers=[
                self._parse_python,
                CodeBlockParser("toml", self._check_toml),
                CodeBlockParser("console", self._check_console),
            ],
            document_types={".md": Document},
        )

    def _parse_python(self, document: Document) -> Iterator[Region]:
        for region in PythonCodeBlockParser(doctest_optionflags=ELLIPSIS)(document):
            if _FILE.match(str(region.parsed)):
                region.evaluator = self._write_file
            yield region

    def _write_file(self, example: Example) -> None:
        text = str(example.parsed)
        name = text.partition("\n")[0].removeprefix("# ")
        target = self.folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        compile(text, name, "exec")

    def _check_toml(self, example: Example) -> None:
        file = self.folder / "settings.toml"
        file.write_text(str(example.parsed))
        with SessionFactoryRegistry.from_toml(file) as registry:
            assert registry.names

    def _check_console(self, example: Example) -> None:
        for command in commands(str(example.parsed)):
            name, *arguments = command.split()
            if name == "make":
                makefile = (ROOT / "Makefile").read_text()
                assert all(f"\n{target}:" in makefile for target in arguments), command
            elif name == "export":
                variable, _, value = arguments[0].partition("=")
                self.variables[variable] = value
            elif command.startswith(_NOT_RUN):
                continue
            elif self.runs_commands:
                run_command(command, self.folder, self.variables)
            elif name == "sessionfactory":
                options = [part for part in arguments if part.startswith("--")]
                shown = run_command(f"sessionfactory {arguments[0]} --help", self.folder, {})
                assert all(option in shown for option in options), command


def commands(block: str) -> Iterator[str]:
    """Yield the commands of a console block, without the comments behind them."""
    for line in block.splitlines():
        if line.startswith("$ "):
            yield line[2:].partition("  #")[0].strip()


def languages(page: Path) -> set[str]:
    """Return the languages of a page's blocks."""
    return set(_BLOCK.findall(page.read_text(encoding="utf-8")))


def run_command(command: str, folder: Path, variables: dict[str, str]) -> str:
    """Run a shell command as a reader of a page does; it must succeed. Return what it wrote."""
    environment = {name: value for name, value in os.environ.items() if "DATABASE" not in name}
    path = f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}"
    process = subprocess.run(
        command, shell=True, cwd=folder, timeout=LIMIT, capture_output=True, text=True, check=False,
        env={**environment, "PATH": path, "PYTHONPATH": str(ROOT), "COLUMNS": "200", **variables},
    )  # fmt: skip
    assert process.returncode == 0, f"{command}\n{process.stdout}\n{process.stderr}"
    return process.stdout
