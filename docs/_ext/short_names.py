"""Names in signatures, which stand there as the code imports them, become links.

A signature says ``Engine`` or ``sessionfactory.config.settings.PoolSettings``; the page of the one
is SQLAlchemy's ``sqlalchemy.engine.Engine``, that of the other ``sessionfactory.PoolSettings``.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from sphinx.ext.intersphinx import InventoryAdapter

import sessionfactory

if TYPE_CHECKING:
    from docutils.nodes import Element, TextElement
    from sphinx.addnodes import pending_xref
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment


_OF_A_ROOM = re.compile(r"sessionfactory\.(?!testing\.[A-Z]|ext\.alembic)\w+\.")

_CLASSES = {
    name
    for file in Path(sessionfactory.__file__).parent.rglob("*.py")
    for name in re.findall(r"^class (\w+)", file.read_text(encoding="utf-8"), re.MULTILINE)
}
"""Classes of the package: one without a page stays text in a signature."""


def resolve(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, content: TextElement
) -> Element | None:
    """Look a missing name up by its last part: here, and then in the other inventories."""
    if node.get("refdomain") != "py":
        return None
    last = str(node["reftarget"]).rpartition(".")[2]
    domain = env.domains.python_domain
    for package in ("sessionfactory", "sessionfactory.testing", "sessionfactory.ext.alembic"):
        if f"{package}.{last}" in domain.objects:
            return domain.resolve_xref(
                env, node["refdoc"], app.builder, "obj", f"{package}.{last}", node, content
            )
    inventories = InventoryAdapter(env).named_inventory
    for inventory in inventories.values():
        for role, names in inventory.items():
            if not role.startswith("py:"):
                continue
            for name in names:
                if name.rpartition(".")[2] == last:
                    return _link(names[name].uri, name, content)
    # A type that a room of the package keeps to itself has no page: its name stays text.
    target = str(node["reftarget"])
    return content if _OF_A_ROOM.match(target) or target in _CLASSES else None


def _link(address: str, name: str, content: TextElement) -> Element:
    from docutils import nodes  # noqa: PLC0415 - Sphinx is at work by now

    link = nodes.reference("", "", internal=False, refuri=address, reftitle=name)
    link.append(content)
    return link


_AS_WRITTEN: dict[tuple[str, str], list[str]] = {}


def note(_: Sphinx, what: str, name: str, _obj: object, _options: object, lines: list[str]) -> None:
    """Remember the text of an attribute, before Napoleon takes what precedes a colon for a type."""
    if what in {"attribute", "property", "data"}:
        _AS_WRITTEN[what, name] = list(lines)


def restore(
    _: Sphinx, what: str, name: str, _obj: object, _options: object, lines: list[str]
) -> None:
    """Put the text of an attribute back."""
    if (what, name) in _AS_WRITTEN:
        lines[:] = _AS_WRITTEN.pop((what, name))


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("autodoc-process-docstring", note, priority=100)
    app.connect("autodoc-process-docstring", restore, priority=900)
    app.connect("missing-reference", resolve, priority=900)  # after intersphinx
    return {"parallel_read_safe": True, "parallel_write_safe": True}
