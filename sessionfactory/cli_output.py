"""What the command prints: tables for people, JSON for machines."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Final, cast

from rich.console import Console
from rich.table import Table
from sqlalchemy import URL

from sessionfactory.config.values import as_table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sessionfactory.status import Health

_NO_WIDTH: Final = 100_000


def plain(value: object) -> object:
    """Return a setting as JSON knows it."""
    table = as_table(value)
    if table is not None:  # engine options, which may hold anything
        return sorted(map(str, table))
    if isinstance(value, tuple) and not isinstance(value, URL):  # a URL is a tuple, too
        return [str(item) for item in cast("tuple[object, ...]", value)]
    return value if isinstance(value, bool | int | float | None) else str(value)


def text_of(value: object) -> str:
    """Return a value as a table shows it."""
    return (
        "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    )


def ping_of(health: Health | None) -> Mapping[str, object]:
    """Return the result of a ping as JSON knows it."""
    if health is None:
        return {}
    answer = {"state": health.state, "latency": health.latency, "detail": health.detail}
    return {"ping": answer}


def sentence_of(health: Health) -> str:
    """Return the result of a ping as a sentence."""
    latency = "" if health.latency is None else f" in {health.latency * 1000:.1f} ms"
    return f"{health.state}{latency}{f' ({health.detail})' if health.detail else ''}"


def print_json(value: object) -> None:
    """Print a value as JSON, for machines."""
    sys.stdout.write(f"{json.dumps(value, indent=2)}\n")


def print_table(title: str, columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """Print a table, for people."""
    table = Table(*columns, title=title, title_justify="left", highlight=False)
    for row in rows:
        table.add_row(*row)
    # A pipe has no width: nothing is cut off or folded there.
    width = None if sys.stdout.isatty() else _NO_WIDTH
    Console(markup=False, highlight=False, width=width).print(table)
