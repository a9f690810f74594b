"""Tables as SVG: bars of medians with their quartiles, readable on light and on dark ground."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from xml.sax.saxutils import escape

from attrs import frozen

from benchmarks.tool.figures import Spread
from benchmarks.tool.report import ground, number

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from benchmarks.tool.figures import Group, Table, Target

_WIDTH, _MARGIN, _LINE, _BAR = 880, 20, 24, 14
_LETTER = 7.8
"""Pixels of a bold letter of 12 pixels' height, so that the longest label fits."""
_FIGURES: Final = 230
"""Pixels for what is written behind the bars."""
_MOST: Final = 5.0
"""How many times longer than the baseline a bar gets before it is broken off."""
_OURS: Final = "SqlAlchemySessionFactory"
# The colours of GitHub's two themes. The ground is painted: elsewhere it may be any.
_STYLE: Final = """
text { font: 12px -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; fill: #1f2328; }
.title { font-size: 14px; font-weight: 600; }
.quiet { fill: #59636e; }
.ours { font-weight: 600; }
.ground { fill: #ffffff; stroke: #d1d9e0; }
.axis { stroke: #818b98; }
.bar { fill: #afb8c1; }
.bar.ours { fill: #0969da; }
.spread { stroke: #1f2328; stroke-width: 1.5; fill: none; }
.break { stroke: #ffffff; stroke-width: 3; }
@media (prefers-color-scheme: dark) {
  text { fill: #f0f6fc; }
  .quiet { fill: #9198a1; }
  .ground { fill: #0d1117; stroke: #3d444d; }
  .axis { stroke: #656c76; }
  .bar { fill: #59636e; }
  .bar.ours { fill: #4493f8; }
  .spread { stroke: #f0f6fc; }
  .break { stroke: #0d1117; }
}
"""


@frozen
class _Bar:
    label: str
    found: Spread
    figure: str
    ratio: str
    target: Target | None

    @property
    def style(self) -> str:
        """Ours is what has our name, or of what something is asked."""
        return "ours" if self.target or self.label.startswith(_OURS) else ""

    @property
    def said(self) -> str:
        """What is written behind the bar."""
        asked = f"asked {self.target}" if self.target else ""
        remarks = ", ".join(part for part in (self.ratio, asked) if part)
        return f"{self.figure} ({remarks})" if remarks else self.figure


def chart(table: Table, only: str | None = None) -> str:
    """Return a table as an SVG document, a panel for each group.

    Args:
        table: the table.
        only: the title of the one group to be shown.
    """
    body: list[str] = []
    top: float = _MARGIN
    for group in table.groups:
        if only in {None, group.title}:
            panel, height = _panel(group, top)
            body += panel
            top += height
    body.append(_text(_MARGIN, top + 4, ground(), "quiet"))
    title = escape(table.title)
    size = f'width="{_WIDTH}" height="{top + _MARGIN:.0f}"'
    frame = f'x="0.5" y="0.5" width="{_WIDTH - 1}" height="{top + _MARGIN - 1:.0f}" rx="6"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" {size}>',
        f"<title>{title}</title>",
        f"<style>{_STYLE}</style>",
        f'<rect class="ground" {frame}/>',
        *body,
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _panel(group: Group, top: float) -> tuple[list[str], float]:
    """Draw a group below ``top``, and return its height too."""
    bars = _bars(group)
    left = _MARGIN + max(len(bar.label) for bar in bars) * _LETTER + 10
    right = _WIDTH - _MARGIN - _FIGURES
    edge = _edge(bars)
    legend = f"{group.unit.label}, {group.unit.better} is better"
    if group.rows:
        legend += f"; medians and quartiles of {group.rounds} rounds"
    lines = [
        _text(_MARGIN, top + 14, group.title, "title"),
        _text(_MARGIN, top + 32, legend, "quiet"),
    ]
    y = top + 42
    for bar in bars:
        lines += _drawn(bar, y, left, (right - left) / edge, edge)
        y += _LINE
    lines.append(f'<path class="axis" d="M{left:.1f} {top + 40:.1f}V{y:.1f}"/>')
    return lines, y - top + _MARGIN


def _bars(group: Group) -> list[_Bar]:
    factor = group.unit.factor
    if not group.rows:
        return [
            _Bar(count.name, Spread.of([count.value]), f"{count.value:,}", "", count.target)
            for count in group.counts
        ]
    levels = {level.name: level.target for level in group.levels}
    bars: list[_Bar] = []
    for row in group.rows:
        if row.of_pair:
            continue
        found = Spread(*(value * factor for value in row.absolute.parts))
        ratio = "" if row.ratio is None or levels else f"{row.ratio.median:.2f} x"
        target = row.target or levels.get(row.name)
        bars.append(_Bar(row.name, found, number(found.median), ratio, target))
    return bars


def _edge(bars: Sequence[_Bar]) -> float:
    """Return the value at the right edge: enough for us, though not for whoever takes far more."""
    ours = [bar.found.high for bar in bars if bar.style]
    wanted = max([bars[0].found.median * _MOST, *ours])
    return min(wanted, max(bar.found.high for bar in bars)) or 1.0


def _drawn(bar: _Bar, y: float, left: float, scale: float, edge: float) -> Iterable[str]:
    middle = y + _LINE / 2
    length = min(bar.found.median, edge) * scale
    yield _text(left - 8, middle + 4, bar.label, bar.style, anchor="end")
    yield (
        f'<rect class="bar {bar.style}" x="{left:.1f}" y="{middle - _BAR / 2:.1f}"'
        f' width="{max(length, 1):.1f}" height="{_BAR}"/>'
    )
    if bar.found.median > edge:
        at = left + length - 14
        yield f'<path class="break" d="M{at:.1f} {middle + 9:.1f}l6 -18"/>'
    elif bar.found.width:
        low, high = (left + min(value, edge) * scale for value in (bar.found.low, bar.found.high))
        yield (
            f'<path class="spread" d="M{low:.1f} {middle:.1f}H{high:.1f}'
            f'M{low:.1f} {middle - 4:.1f}v8M{high:.1f} {middle - 4:.1f}v8"/>'
        )
    yield _text(_WIDTH - _MARGIN - _FIGURES + 14, middle + 4, bar.said, bar.style)


def _text(x: float, y: float, said: str, style: str, *, anchor: str = "start") -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text class="{style}" {place}>{escape(said)}</text>'
