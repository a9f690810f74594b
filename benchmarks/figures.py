"""The arithmetic of a comparison: medians, spreads, ratios, and what may be said of them."""

from __future__ import annotations

from statistics import median, quantiles
from typing import TYPE_CHECKING, Literal

from attrs import field, frozen

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@frozen
class Spread:
    """The median of some samples, and the quartiles on both sides of it."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, samples: Sequence[float]) -> Spread:
        """Summarise samples, of which there must be one at least."""
        if len(samples) == 1:
            return cls(samples[0], samples[0], samples[0])
        low, _, high = quantiles(samples, n=4, method="inclusive")
        return cls(low, median(samples), high)

    @property
    def width(self) -> float:
        """How far the quartiles are apart."""
        return self.high - self.low


@frozen
class Target:
    """What a figure is asked to be."""

    relation: Literal["<=", ">="]
    limit: float

    def __str__(self) -> str:
        return f"{self.relation} {self.limit:g}"

    def met_by(self, figure: float) -> bool:
        """Say whether a figure is what was asked."""
        return figure <= self.limit if self.relation == "<=" else figure >= self.limit


@frozen(kw_only=True)
class Row:
    """One candidate: what it took, and its ratio to another one in the same rounds.

    Args:
        name: the candidate.
        absolute: its samples.
        ratio: of its sample to the other's, round by round; ``None`` for the baseline itself.
        target: what the median ratio is asked to be.
    """

    name: str
    absolute: Spread
    ratio: Spread | None = None
    target: Target | None = None

    @property
    def met(self) -> bool | None:
        """Whether the median ratio meets the target, if there is one."""
        if self.ratio is None or self.target is None:
            return None
        return self.target.met_by(self.ratio.median)

    @property
    def verdict(self) -> str:
        """What may be said: met or missed, and whether the spread allows to say it."""
        if self.ratio is None:
            return "baseline"
        said: list[str] = []
        if self.target is not None:
            said.append("met" if self.met else "missed")
            if self.target.met_by(self.ratio.low) != self.target.met_by(self.ratio.high):
                said.append("the spread reaches across the target")
        if self.ratio.width > abs(self.ratio.median - 1):
            said.append("not distinguishable")
        return "; ".join(said)


@frozen(kw_only=True)
class Count:
    """Something that was counted over all rounds."""

    name: str
    value: int
    out_of: int
    target: Target | None = None

    @property
    def met(self) -> bool | None:
        """Whether the count meets the target, if there is one."""
        return None if self.target is None else self.target.met_by(self.value)

    @property
    def verdict(self) -> str:
        """Met or missed."""
        return "" if self.met is None else "met" if self.met else "missed"


@frozen
class Unit:
    """How samples are shown: seconds times a million, for instance, are ``µs``."""

    label: str
    factor: float = 1.0


@frozen(kw_only=True)
class Group:
    """Candidates that were measured in the same rounds."""

    title: str
    unit: Unit
    rounds: int
    rows: tuple[Row, ...]
    counts: tuple[Count, ...] = ()


@frozen(kw_only=True)
class Table:
    """What one module of this package found."""

    name: str
    title: str
    notes: tuple[str, ...]
    groups: tuple[Group, ...]

    def with_verdict(self, *, met: bool) -> tuple[str, ...]:
        """Name every row and count that met (or that missed) its target."""
        found: list[str] = []
        for group in self.groups:
            lines: tuple[Row | Count, ...] = (*group.rows, *group.counts)
            found += [f"{group.title}: {line.name}" for line in lines if line.met is met]
        return tuple(found)


@frozen(kw_only=True)
class Question:
    """What is asked of the samples of one group.

    Args:
        title: what was measured.
        unit: how samples are shown.
        targets: by candidate, what its ratio to the first candidate is asked to be.
        also: pairs of candidates to compare beside, the second being the baseline.
    """

    title: str
    unit: Unit
    targets: Mapping[str, Target] = field(factory=dict[str, Target])
    also: Sequence[tuple[str, str]] = ()


def ratios(samples: Sequence[float], baseline: Sequence[float]) -> tuple[float, ...]:
    """Divide round by round, so that what slows a whole round down cancels out."""
    # A baseline of nothing done, in a window too short for it, tells no difference.
    pairs = zip(samples, baseline, strict=True)
    return tuple(ours / theirs if theirs else 1.0 for ours, theirs in pairs)


def compare(
    question: Question, samples: Mapping[str, Sequence[float]], counts: Sequence[Count] = ()
) -> Group:
    """Compare every candidate with the first one, and those pairs that were asked for."""
    baseline, *others = samples
    spreads = {name: Spread.of(taken) for name, taken in samples.items()}
    rows = [Row(name=baseline, absolute=spreads[baseline])]
    pairs = [(name, name, baseline, question.targets.get(name)) for name in others]
    pairs += [(f"{one}, against {other}", one, other, None) for one, other in question.also]
    for label, one, other, target in pairs:
        ratio = Spread.of(ratios(samples[one], samples[other]))
        rows.append(Row(name=label, absolute=spreads[one], ratio=ratio, target=target))
    return Group(
        title=question.title,
        unit=question.unit,
        rounds=len(samples[baseline]),
        rows=tuple(rows),
        counts=tuple(counts),
    )
