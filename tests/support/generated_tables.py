"""Tables of benchmarks that nobody measured."""

from __future__ import annotations

from benchmarks.figures import Count, Group, Row, Spread, Table, Target, Unit

LOW = Target("<=", 0.97)


def row(low: float, median: float, high: float, target: Target | None = None) -> Row:
    """Make a row of this ratio."""
    return Row(name="a", absolute=Spread(1, 1, 1), ratio=Spread(low, median, high), target=target)


def table(*rows: Row, counts: tuple[Count, ...] = ()) -> Table:
    """Make a table of one group."""
    group = Group(title="speed", unit=Unit("µs", 1e6), rounds=3, rows=rows, counts=counts)
    return Table(name="made_up", title="made up", notes=("A note.",), groups=(group,))
