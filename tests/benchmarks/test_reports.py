"""Benchmarks as text and as charts."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

import pytest

from benchmarks.charts import chart
from benchmarks.figures import (
    Count,
    Group,
    Growth,
    Row,
    Spread,
    Table,
    Target,
    Unit,
)
from benchmarks.report import render, summary
from tests.support.generated_tables import LOW, row, table

OURS = "SqlAlchemySessionFactory"
SVG = "http://www.w3.org/2000/svg"


class TestReport:
    def test_render(self) -> None:
        """A table is Markdown: figures, ratio, spread and target stand beside the verdict."""
        baseline = Row(name="plain", absolute=Spread(2e-6, 2e-6, 2e-6))
        counts = (Count(name="lost", value=1200, out_of=5400, target=Target("<=", 0)),)
        text = render(table(baseline, row(0.90, 0.95, 0.96, LOW), counts=counts))
        lines = [" ".join(line.split()) for line in text.splitlines()]
        assert lines[0] == "# made_up: made up"
        assert "- A note." in lines
        assert "| plain | 2.00 | 2.00 to 2.00 | 1 | | | baseline |" in lines
        absolute = "1,000,000 | 1,000,000 to 1,000,000"
        compared = "0.950 | 0.900 to 0.960 | <= 0.97 | met; not distinguishable"
        assert f"| a | {absolute} | {compared} |" in lines
        assert "| lost | 1,200 | 5,400 | <= 0 | missed |" in lines

    def test_render_growth(self) -> None:
        """What a candidate takes beyond the first one has a grid of its own, and counts."""
        target = Target("<=", 10)
        growth = Growth(name="a", beyond=Spread(-12, -3, 1), target=target)
        grown = Group(title="cost", unit=Unit("ms"), rounds=3, rows=(), growths=(growth,))
        found = Table(name="grown", title="grown", notes=(), groups=(grown,))
        lines = [" ".join(line.split()) for line in render(found).splitlines()]
        assert "| a | -3.00 | -12.0 to 1.00 | <= 10 | met; not distinguishable |" in lines
        assert summary([found]) == "Targets: 1 met, 0 missed."

    def test_aligned(self) -> None:
        """The lines of a table are equally long, so that it can be read as text."""
        text = render(table(row(0.90, 0.95, 0.96, LOW), row(1, 1, 1)))
        assert len({len(line) for line in text.splitlines() if line.startswith("|")}) == 1

    def test_summary(self) -> None:
        """The summary counts the targets, and names those that were missed."""
        lost = Count(name="lost", value=0, out_of=9, target=Target("<=", 0))
        found = table(row(1, 1, 1, LOW), row(1, 1, 1), counts=(lost,))
        assert summary([found]) == "Targets: 1 met, 1 missed.\n- missed: speed: a"


class TestCharts:
    """What can be asked of a picture without looking at it."""

    @pytest.fixture
    def drawn(self) -> tuple[Table, list[str]]:
        """A table whose second group has only counts, and the texts of its chart."""
        rows = (
            Row(name="plain <1>", absolute=Spread(1e-6, 2e-6, 3e-6)),
            Row(
                name=OURS,
                absolute=Spread(2e-6, 3e-6, 4e-6),
                ratio=Spread(1.4, 1.5, 1.6),
                target=Target("<=", 1.4),
            ),
            Row(name="slow", absolute=Spread(9e-5, 9e-5, 9e-5), ratio=Spread(45, 45, 45)),
            Row(name="pair", absolute=Spread(1, 1, 1), ratio=Spread(1, 1, 1), of_pair=True),
        )
        unit = Unit("µs", 1e6)
        counts = (Count(name=OURS, value=3, target=Target("<=", 3)), Count(name="b", value=0))
        groups = (
            Group(title="speed", unit=unit, rounds=3, rows=rows),
            Group(title="trips", unit=Unit("round trips"), rounds=3, rows=(), counts=counts),
        )
        found = Table(name="t", title="made & up", notes=(), groups=groups)
        parsed = ET.fromstring(chart(found))
        return found, [element.text or "" for element in parsed.iter(f"{{{SVG}}}text")]

    def test_texts(self, drawn: tuple[Table, list[str]]) -> None:
        """A panel says what is measured, in which unit, what is better, and each figure."""
        assert drawn[1][:-1] == [
            *("speed", "µs, less is better; medians and quartiles of 3 rounds"),
            *("plain <1>", "2.00"),
            *(OURS, "3.00 (1.50 x, asked <= 1.4)"),
            *("slow", "90.0 (45.00 x)"),
            *("trips", "round trips, less is better"),
            *(OURS, "3 (asked <= 3)"),
            *("b", "0"),
        ]
        assert "SQLAlchemy" in drawn[1][-1]

    def test_bars(self, drawn: tuple[Table, list[str]]) -> None:
        """Bars are as long as medians say; one that is far too long is broken off, and fits."""
        parsed = ET.fromstring(chart(drawn[0]))
        bars = [
            (element.get("class", ""), float(element.get("x", "")), float(element.get("width", "")))
            for element in parsed.iter(f"{{{SVG}}}rect")
            if "bar" in element.get("class", "")
        ]
        (_, _, plain), (style, _, ours), (_, x, slow), *_ = bars
        assert ours / plain == pytest.approx(1.5, rel=0.01)
        assert slow / plain == pytest.approx(5, rel=0.01)
        assert x + slow < float(parsed.get("width", "")) - 200
        assert style == "bar ours"
        assert [element.get("class") for element in parsed.iter(f"{{{SVG}}}path")].count(
            "break"
        ) == 1

    def test_dark(self, drawn: tuple[Table, list[str]]) -> None:
        """Each colour of the light theme has its twin in the dark one."""
        light, dark = chart(drawn[0]).split("@media (prefers-color-scheme: dark)")
        coloured = re.compile(r"^ *([\w.]+) \{.*#", re.MULTILINE)
        assert set(coloured.findall(light)) == set(coloured.findall(dark))

    def test_only(self, drawn: tuple[Table, list[str]]) -> None:
        """One group alone can be drawn."""
        alone = chart(drawn[0], "trips")
        assert ">trips<" in alone
        assert ">speed<" not in alone
