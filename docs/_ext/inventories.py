"""Inventories of other projects' documentation, made from lists: a build needs no network.

A list has one line for each name that is used here: the name, its role, and the page it is on. A
page that ends in ``#`` has the name as its anchor.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

SITES: Final = {
    "python": "https://docs.python.org/3/",
    "sqlalchemy": "https://docs.sqlalchemy.org/en/21/",
}


def build(docs: Path) -> dict[str, tuple[str, str]]:
    """Write the inventories of all sites, and return Sphinx' ``intersphinx_mapping``."""
    folder = docs / "_build" / "inventories"
    folder.mkdir(parents=True, exist_ok=True)
    mapping: dict[str, tuple[str, str]] = {}
    for site, address in SITES.items():
        lines = (docs / "_inventories" / f"{site}.txt").read_text(encoding="utf-8").splitlines()
        file = folder / f"{site}.inv"
        file.write_bytes(_inventory(site, [line.split() for line in lines if line.strip()]))
        mapping[site] = (address, str(file))
    return mapping


def _inventory(site: str, entries: list[list[str]]) -> bytes:
    head = f"# Sphinx inventory version 2\n# Project: {site}\n# Version: \n"
    head += "# The remainder of this file is compressed using zlib.\n"
    body = "".join(
        f"{name} {role} 1 {page}{'$' if page.endswith('#') else ''} -\n"
        for name, role, page in entries
    )
    return head.encode() + zlib.compress(body.encode())
