"""Tables as text: Markdown that is aligned, so that it reads well in a terminal and in a diff."""

from __future__ import annotations

import os
import platform
import sqlite3
from typing import TYPE_CHECKING

import sqlalchemy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.figures import Count, Group, Growth, Level, Row, Spread, Table, Unit

_ROWS = ("candidate", "median", "quartiles", "ratio", "spread", "target", "verdict")
_GROWTHS = ("beyond the first", "median", "quartiles", "target", "verdict")
_LEVELS = ("by itself", "median", "quartiles", "target", "verdict")
_COUNTS = ("counted over all rounds", "found", "of", "target", "verdict")


def ground() -> str:
    """Say what the figures stand on."""
    return (
        f"{platform.python_implementation()} {platform.python_version()},"
        f" SQLAlchemy {sqlalchemy.__version__}, SQLite {sqlite3.sqlite_version},"
        f" {os.cpu_count()} cores. Ratios hold; absolute figures do not travel."
    )


def render(table: Table) -> str:
    """Return a table as Markdown.

    "ratio" is the median of the ratios to the baseline, taken round by round; "spread" their
    quartiles. Where that is wider than the ratio's distance from 1, the verdict says "not
    distinguishable".
    """
    parts = [f"# {table.name}: {table.title}", ground()]
    parts += [f"- {note}" for note in table.notes]
    for group in table.groups:
        parts.append(_group(group))
    return "\n\n".join(parts) + "\n"


def _group(group: Group) -> str:
    lines = [f"## {group.title}", "", f"{group.unit.label}, {group.rounds} rounds"]
    grids = (
        (_ROWS, [_row(row, group.unit) for row in group.rows]),
        (_GROWTHS, [_cells(growth, growth.beyond) for growth in group.growths]),
        (_LEVELS, [_cells(level, level.found) for level in group.levels]),
        (_COUNTS, [_count(count) for count in group.counts]),
    )
    for head, rows in grids:
        if rows:
            lines += ["", *_grid(head, rows)]
    return "\n".join(lines)


def _row(row: Row, unit: Unit) -> tuple[str, ...]:
    ratio = "1" if row.ratio is None else f"{row.ratio.median:.3f}"
    spread = "" if row.ratio is None else f"{row.ratio.low:.3f} to {row.ratio.high:.3f}"
    target = "" if row.target is None else str(row.target)
    median = number(row.absolute.median * unit.factor)
    quartiles = _quartiles(row.absolute, unit.factor)
    return row.name, median, quartiles, ratio, spread, target, row.verdict


def _cells(line: Growth | Level, found: Spread) -> tuple[str, ...]:
    return line.name, number(found.median), _quartiles(found), str(line.target), line.verdict


def _quartiles(spread: Spread, factor: float = 1.0) -> str:
    return f"{number(spread.low * factor)} to {number(spread.high * factor)}"


def _count(count: Count) -> tuple[str, ...]:
    target = "" if count.target is None else str(count.target)
    out_of = "" if count.out_of is None else f"{count.out_of:,}"
    return count.name, f"{count.value:,}", out_of, target, count.verdict


def number(value: float) -> str:
    """Return a figure with as many digits as say something."""
    size = abs(value)
    digits = 0 if size >= 100 else 1 if size >= 10 else 2
    return f"{value:,.{digits}f}"


def _grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = [head, ["-" * width for width in widths], *rows]
    return [
        f"| {' | '.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))} |"
        for line in lines
    ]


def summary(tables: Sequence[Table]) -> str:
    """Say how many targets were met, and name those that were missed."""
    met = [line for table in tables for line in table.with_verdict(met=True)]
    missed = [line for table in tables for line in table.with_verdict(met=False)]
    return "\n".join(
        [
            f"Targets: {len(met)} met, {len(missed)} missed.",
            *(f"- missed: {line}" for line in missed),
        ]
    )
