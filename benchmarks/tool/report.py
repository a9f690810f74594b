"""Tables as text: Markdown that is aligned, so that it reads well in a terminal and in a diff."""

from __future__ import annotations

import os
import platform
import sqlite3
from typing import TYPE_CHECKING

import sqlalchemy

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.tool.figures import Count, Group, Growth, Level, Row, Spread, Table, Unit

_ROWS = ("candidate", "median", "quartiles", "ratio", "spread", "target", "verdict")
_GROWTHS = ("beyond the first", "median", "quartiles", "target", "verdict")
_LEVELS = ("by itself", "median", "quartiles", "target", "verdict")
_COUNTS = ("counted over all rounds", "found", "of", "target", "verdict")

RECORD = ("measurement", "what", "candidate", "median (quartiles)", "ratio", "target", "verdict")
_INTRODUCTION = """\
# Results

{ground}

Written by `make bench`. A ratio is the median of the ratios to the baseline, taken round by round,
with their quartiles. `python -m benchmarks MEASUREMENT` measures one again, and prints its notes.
"""


def ground() -> str:
    """Return what the figures depend on."""
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


def record(table: Table) -> list[tuple[str, ...]]:
    """Return a table as rows of ``RECORD``, which stand beside those of other measurements."""
    return [row for group in table.groups for row in _recorded(table.name, group)]


def _recorded(name: str, group: Group) -> Iterator[tuple[str, ...]]:
    for row in group.rows:
        who, median, quartiles, ratio, spread, target, verdict = _row(row, group.unit)
        ratio = f"{ratio} ({spread})" if spread else ratio
        yield name, _what(group), who, f"{median} ({quartiles})", ratio, target, verdict
    lines: list[tuple[Growth | Level, Spread, str]] = [
        *((growth, growth.beyond, "beyond the first") for growth in group.growths),
        *((level, level.found, "by itself") for level in group.levels),
    ]
    for line, found, kind in lines:
        who, median, quartiles, target, verdict = _cells(line, found)
        yield name, f"{_what(group)}, {kind}", who, f"{median} ({quartiles})", "", target, verdict
    for count in group.counts:
        who, value, out_of, target, verdict = _count(count)
        value = f"{value} of {out_of}" if out_of else value
        yield name, f"{group.title}: counted", who, value, "", target, verdict


def _what(group: Group) -> str:
    return f"{group.title}: {group.unit.label}"


def recorded(tables: Sequence[Table], earlier: str = "") -> str:
    """Return the one Markdown file of results: the tables, and what it holds of others.

    Args:
        tables: what was measured now.
        earlier: the file's text so far.
    """
    again = {table.name for table in tables}
    rows = [
        tuple(line[2:-2].split(" | ")) for line in earlier.splitlines() if line.startswith("| ")
    ]
    kept = [row for row in rows[2:] if row[0] not in again]
    new = [row for table in tables for row in record(table)]
    rows = [RECORD, ("---",) * len(RECORD), *sorted([*kept, *new], key=lambda row: row[0])]
    # Not aligned: a figure that gets longer would change every line.
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([_INTRODUCTION.format(ground=ground()), *lines]) + "\n"


def _quartiles(spread: Spread, factor: float = 1.0) -> str:
    return f"{number(spread.low * factor)} to {number(spread.high * factor)}"


def _count(count: Count) -> tuple[str, ...]:
    target = "" if count.target is None else str(count.target)
    out_of = "" if count.out_of is None else f"{count.out_of:,}"
    return count.name, f"{count.value:,}", out_of, target, count.verdict


def number(value: float) -> str:
    """Return a figure with as many digits as mean something."""
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
    """Return how many targets were met, and which were missed."""
    met = [line for table in tables for line in table.with_verdict(met=True)]
    missed = [line for table in tables for line in table.with_verdict(met=False)]
    return "\n".join(
        [
            f"Targets: {len(met)} met, {len(missed)} missed.",
            *(f"- missed: {line}" for line in missed),
        ]
    )
