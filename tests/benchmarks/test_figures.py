"""What the benchmarks measure with: turns, samples, medians, ratios, verdicts."""

from __future__ import annotations

import gc
import threading
from functools import partial

import pytest

from benchmarks.figures import (
    Question,
    Row,
    Spread,
    Target,
    Unit,
    compare,
    ratios,
)
from benchmarks.harness import alternate, fastest, timed, together
from tests.support.generated_tables import LOW, row


class TestAlternate:
    def test_turns(self) -> None:
        """Candidates take turns, and each round begins with the next one, after a warm-up."""
        order: list[str] = []
        candidates = {name: partial(order.append, name) for name in "abc"}
        alternate(candidates, rounds=4)
        assert "".join(order) == "abc" + "abc" + "bca" + "cab" + "abc"

    def test_samples(self) -> None:
        """The samples at one index are from one round, and the warm-up's are thrown away."""
        numbers = iter(range(100))
        samples = alternate({"a": lambda: next(numbers), "b": lambda: next(numbers)}, rounds=3)
        assert samples == {"a": [2, 5, 6], "b": [3, 4, 7]}

    def test_garbage(self) -> None:
        """Garbage collection is on while a candidate runs, and nothing stays frozen afterwards."""
        frozen = gc.get_freeze_count()
        assert alternate({"a": gc.isenabled}, rounds=1) == {"a": [True]}
        assert gc.get_freeze_count() == frozen

    def test_failure(self) -> None:
        """A candidate that raises ends the measurement, and nothing stays frozen."""
        frozen = gc.get_freeze_count()
        answers = iter([1.0])
        with pytest.raises(StopIteration):
            alternate({"a": lambda: next(answers)}, rounds=1)
        assert gc.get_freeze_count() == frozen


class TestTimed:
    def test_number(self) -> None:
        """A sample runs a tenth of the operations to get warm, and then all that it times."""
        calls: list[None] = []
        assert timed(lambda: calls.append(None), number=20)() > 0
        assert len(calls) == 3 + 20

    def test_fastest(self) -> None:
        """Successive rounds become one, which keeps each candidate's fastest sample."""
        samples = {"a": [3.0, 1.0, 2.0, 9.0], "b": [5.0, 6.0, 8.0, 7.0]}
        assert fastest(samples, passes=2) == {"a": [1.0, 2.0], "b": [5.0, 7.0]}


class TestTogether:
    def test_at_once(self) -> None:
        """Workers run at the same time, and their results keep the workers' order."""
        meeting = threading.Barrier(3, timeout=5)
        seconds, results = together([lambda: meeting.wait() * 0 + 1, meeting.wait, meeting.wait])
        assert results[0] == 1
        assert seconds > 0

    def test_failure(self) -> None:
        """What a worker raises reaches the caller."""
        with pytest.raises(ZeroDivisionError):
            together([lambda: 1 / 0, lambda: 1.0])


class TestFigures:
    @pytest.mark.parametrize(
        ("samples", "expected"),
        [
            ([4.0, 1.0, 3.0, 2.0, 5.0], Spread(2, 3, 4)),
            ([1.0, 2.0], Spread(1.25, 1.5, 1.75)),
            ([7.0], Spread(7, 7, 7)),
        ],
    )
    def test_spread(self, samples: list[float], expected: Spread) -> None:
        """A spread is the median and the quartiles, also of one sample alone."""
        assert Spread.of(samples) == expected

    def test_ratios(self) -> None:
        """Ratios are taken round by round."""
        assert ratios([1.0, 9.0], [2.0, 3.0]) == (0.5, 3.0)

    def test_ratios_of_unequal_rounds(self) -> None:
        """Samples of different rounds cannot be compared."""
        with pytest.raises(ValueError, match="longer"):
            ratios([1.0], [1.0, 2.0])

    @pytest.mark.parametrize(
        ("target", "figure", "met"),
        [
            (Target("<=", 0.97), 0.97, True),
            (Target("<=", 0.97), 0.98, False),
            (Target(">=", 4), 4.0, True),
            (Target(">=", 4), 3.9, False),
        ],
    )
    def test_target(self, target: Target, figure: float, *, met: bool) -> None:
        """A target is met up to and including its limit, in its own direction."""
        assert target.met_by(figure) is met

    @pytest.mark.parametrize(
        ("found", "verdict"),
        [
            (row(0.89, 0.90, 0.91), ""),
            (row(1.09, 1.10, 1.11), ""),
            (row(0.80, 0.90, 1.00), "not distinguishable"),
            (row(1.00, 1.00, 1.00), ""),
            (row(0.89, 0.90, 0.91, LOW), "met"),
            (row(1.19, 1.20, 1.21, LOW), "missed"),
            (
                row(0.90, 0.96, 1.00, LOW),
                "met; the spread reaches across the target; not distinguishable",
            ),
            (
                row(0.96, 0.98, 0.99, LOW),
                "missed; the spread reaches across the target; not distinguishable",
            ),
        ],
    )
    def test_verdict(self, found: Row, verdict: str) -> None:
        """A verdict says met or missed, and where the spread is wider than the difference."""
        assert found.verdict == verdict

    def test_compare(self) -> None:
        """The first candidate is the baseline, and further pairs are compared where asked for."""
        question = Question(
            title="speed", unit=Unit("s"), targets={"ours": Target("<=", 0.6)}, also=[("ours", "b")]
        )
        samples = {"plain": [2.0, 4.0], "ours": [1.0, 2.0], "b": [4.0, 8.0]}
        group = compare(question, samples)
        assert [(found.name, found.ratio and found.ratio.median) for found in group.rows] == [
            ("plain", None),
            ("ours", 0.5),
            ("b", 2.0),
            ("ours, against b", 0.25),
        ]
        assert [found.met for found in group.rows] == [None, True, None, None]
        assert group.rounds == 2

    @pytest.mark.parametrize(
        ("ours", "low", "high", "verdict"),
        [
            ([3.0, 6.0], 1.25, 1.75, "met"),
            ([5.0, 8.0], 3.25, 3.75, "missed"),
            ([1.0, 5.0], -0.5, 0.5, "met; not distinguishable"),
            ([2.0, 10.0], 1.5, 4.5, "met; the spread reaches across the target"),
        ],
    )
    def test_growth(self, ours: list[float], low: float, high: float, verdict: str) -> None:
        """What is to be small is subtracted round by round, in the unit of its target."""
        question = Question(title="cost", unit=Unit("ms", 1e3), growth={"ours": Target("<=", 3)})
        samples = {"plain": [2e-3, 4e-3], "ours": [sample * 1e-3 for sample in ours]}
        (growth,) = compare(question, samples).growths
        assert (growth.beyond.low, growth.beyond.high) == pytest.approx((low, high))
        assert growth.verdict == verdict

    def test_target_of_a_pair(self) -> None:
        """A pair that is compared beside can have a target, and is known for what it is."""
        target = Target("<=", 0.3)
        question = Question(
            title="speed",
            unit=Unit("s"),
            targets={"ours, against b": target},
            also=[("ours", "b")],
        )
        group = compare(question, {"plain": [1.0], "ours": [1.0], "b": [4.0]})
        assert [line.of_pair for line in group.rows] == [False, False, False, True]
        assert group.rows[-1].target == target
        assert group.rows[-1].met

    @pytest.mark.parametrize(
        ("shares", "verdict"),
        [
            ([0.97, 0.98], "met"),
            ([0.90, 0.91], "missed"),
            ([0.94, 0.97], "met; the spread reaches across the target"),
        ],
    )
    def test_level(self, shares: list[float], verdict: str) -> None:
        """What a candidate has to reach by itself is judged whatever the others do, in the unit."""
        levels = {"ours": Target(">=", 95)}
        question = Question(title="shares", unit=Unit("per cent", 100), levels=levels)
        (level,) = compare(question, {"plain": [0.1, 0.1], "ours": shares}).levels
        assert level.verdict == verdict
        assert level.found.low >= 90
