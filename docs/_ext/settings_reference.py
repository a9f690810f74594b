"""The tables of settings, made from the settings' classes: they cannot drift from the code."""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING, Final

import attrs
from docutils.core import publish_doctree
from sphinx.util.docutils import SphinxDirective

import sessionfactory

if TYPE_CHECKING:
    from collections.abc import Iterator

    from docutils import nodes
    from sphinx.application import Sphinx

SECTIONS: Final = {
    "": sessionfactory.DatabaseSettings,
    "pool": sessionfactory.PoolSettings,
    "session": sessionfactory.SessionSettings,
    "sqlite": sessionfactory.SqliteSettings,
}
ONLY_TABLES: Final = frozenset({"engine_options", "url_secrets", "options"})
"""Settings that are tables with keys of their own, which no variable can set."""


@attrs.frozen
class Setting:
    """One row of a table."""

    path: str
    default: str
    meaning: str

    @property
    def variable(self) -> str:
        """Return the environment variable that sets it, or an empty text."""
        if self.path.rpartition(".")[2] in ONLY_TABLES:
            return ""
        return f"DATABASE_{self.path.upper().replace('.', '_')}"


def settings(section: str) -> Iterator[Setting]:
    """Yield the settings of a section, in the order of its class."""
    cls = SECTIONS[section]
    meanings = arguments_of(cls)
    for field in attrs.fields(cls):
        if field.name in SECTIONS or field.name.startswith("_"):
            continue
        path = f"{section}.{field.name}" if section else field.name
        yield Setting(path, default_of(field), meanings[field.name])


def default_of(field: attrs.Attribute[object]) -> str:
    """Return a field's default as TOML would have it."""
    default = field.default
    if default is attrs.NOTHING:
        return "required"
    if default is None:
        return "none"
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, str | int | float):
        return repr(default).replace("'", '"')
    return "empty"


def arguments_of(cls: type) -> dict[str, str]:
    """Return what the ``Args:`` of a class' docstring say, by name."""
    text = inspect.cleandoc(cls.__doc__ or "")
    block = re.search(r"^Args:\n((?:^    .*\n?|^\n)+)", text, re.MULTILINE)
    found: dict[str, str] = {}
    if block:
        for entry in re.finditer(
            r"^    (\w+): (.*(?:\n        .*)*)", block.group(1), re.MULTILINE
        ):
            found[entry.group(1)] = " ".join(entry.group(2).split())
    return found


class SettingsTable(SphinxDirective):
    """``{settings} pool``: the table of a section; without an argument, of the database."""

    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return the table."""
        lines = [".. list-table::", "   :header-rows: 1", "   :widths: 22 30 12 36", ""]
        lines += ["   * - key in TOML", "     - environment", "     - default", "     - meaning"]
        for row in settings(self.arguments[0] if self.arguments else ""):
            variable = f"``{row.variable}``" if row.variable else "only in TOML and code"
            lines += [f"   * - ``{row.path}``", f"     - {variable}"]
            lines += [f"     - ``{row.default}``", f"     - {row.meaning}"]
        # reStructuredText, as the docstrings are, though the page is Markdown.
        tree = publish_doctree("\n".join(lines), settings_overrides={"report_level": 2})
        return list(tree.children)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.add_directive("settings", SettingsTable)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
