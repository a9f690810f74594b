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
    def parts(self) -> tuple[float, float, float]:
        """The three values, from the least to the most."""
        return self.low, self.median, self.high

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
        of_pair: whether this is one candidate again, against another one than the baseline.
    """

    name: str
    absolute: Spread
    ratio: Spread | None = None
    target: Target | None = None
    of_pair: bool = False

    @property
    def met(self) -> bool | None:
        """Whether the median ratio meets the target, if there is one."""
        if self.ratio is None or self.target is None:
            return None
        return self.target.met_by(self.ratio.median)

    @property
    def verdict(self) -> str:
        """What may be said: met or missed, and whether the spread allows to say it."""
        return "baseline" if self.ratio is None else _verdict(self.ratio, self.target, same=1)


@frozen(kw_only=True)
class Growth:
    """What one candidate took beyond the first one in the same rounds, in the group's unit."""

    name: str
    beyond: Spread
    target: Target

    @property
    def met(self) -> bool:
        """Whether the median meets the target."""
        return self.target.met_by(self.beyond.median)

    @property
    def verdict(self) -> str:
        """What may be said, as of a ratio."""
        return _verdict(self.beyond, self.target, same=0)


def _verdict(found: Spread, target: Target | None, *, same: float) -> str:
    """Say whether a target is met, and what the spread does not allow to say.

    Args:
        found: the comparison.
        target: what its median is asked to be.
        same: what it is of two candidates that do not differ.
    """
    said = [] if target is None else [_said(found, target)]
    if found.width > abs(found.median - same):
        said.append("not distinguishable")
    return "; ".join(said)


def _said(found: Spread, target: Target) -> str:
    met = "met" if target.met_by(found.median) else "missed"
    across = target.met_by(found.low) != target.met_by(found.high)
    return f"{met}; the spread reaches across the target" if across else met


@frozen(kw_only=True)
class Level:
    """What one candidate is asked to reach by itself, in the group's unit."""

    name: str
    found: Spread
    target: Target

    @property
    def met(self) -> bool:
        """Whether the median meets the target."""
        return self.target.met_by(self.found.median)

    @property
    def verdict(self) -> str:
        """What may be said: met or missed, and whether the spread allows to say it."""
        return _said(self.found, self.target)


@frozen(kw_only=True)
class Count:
    """Something that was counted over all rounds: out of so many, if there is such a number."""

    name: str
    value: int
    out_of: int | None = None
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
    """How samples are shown: seconds times a million, for instance, are ``µs``.

    Args:
        label: what a sample is, with its unit.
        factor: what a sample is multiplied by to be shown.
        better: which samples are better.
    """

    label: str
    factor: float = 1.0
    better: Literal["less", "more"] = "less"


@frozen(kw_only=True)
class Group:
    """Candidates that were measured in the same rounds."""

    title: str
    unit: Unit
    rounds: int
    rows: tuple[Row, ...]
    growths: tuple[Growth, ...] = ()
    levels: tuple[Level, ...] = ()
    counts: tuple[Count, ...] = ()


@frozen(kw_only=True)
class Table:
    """What one module of this package found.

    Args:
        name: its name, and that of its files.
        title: what was measured.
        notes: what one has to know to read it.
        groups: what was found.
        highlight: the title of a group that has a chart of its own, for the README.
    """

    name: str
    title: str
    notes: tuple[str, ...]
    groups: tuple[Group, ...]
    highlight: str | None = None

    def with_verdict(self, *, met: bool) -> tuple[str, ...]:
        """Name every row and count that met (or that missed) its target."""
        found: list[str] = []
        for group in self.groups:
            lines: tuple[Row | Growth | Level | Count, ...]
            lines = (*group.rows, *group.growths, *group.levels, *group.counts)
            found += [f"{group.title}: {line.name}" for line in lines if line.met is met]
        return tuple(found)


@frozen(kw_only=True)
class Question:
    """What is asked of the samples of one group.

    Args:
        title: what was measured.
        unit: how samples are shown.
        targets: by candidate, what its ratio to the first candidate is asked to be; by the name
            of a pair ("one, against other"), what theirs is.
        growth: by candidate, what it is asked to take beyond the first one, in the unit.
        levels: by candidate, what it is asked to reach by itself, in the unit.
        also: pairs of candidates to compare beside, the second being the baseline.
    """

    title: str
    unit: Unit
    targets: Mapping[str, Target] = field(factory=dict[str, Target])
    growth: Mapping[str, Target] = field(factory=dict[str, Target])
    levels: Mapping[str, Target] = field(factory=dict[str, Target])
    also: Sequence[tuple[str, str]] = ()


def ratios(samples: Sequence[float], baseline: Sequence[float]) -> tuple[float, ...]:
    """Divide round by round, so that what slows a whole round down cancels out."""
    # A baseline of nothing done, in a window too short for it, tells no difference.
    pairs = zip(samples, baseline, strict=True)
    return tuple(ours / theirs if theirs else 1.0 for ours, theirs in pairs)


def _growth(question: Question, samples: Mapping[str, Sequence[float]]) -> list[Growth]:
    """Subtract round by round, for the candidates of which that is asked."""
    baseline = next(iter(samples))
    growths: list[Growth] = []
    for name, target in question.growth.items():
        pairs = zip(samples[name], samples[baseline], strict=True)
        beyond = Spread.of([(ours - theirs) * question.unit.factor for ours, theirs in pairs])
        growths.append(Growth(name=name, beyond=beyond, target=target))
    return growths


def _levels(question: Question, samples: Mapping[str, Sequence[float]]) -> list[Level]:
    factor = question.unit.factor
    return [
        Level(
            name=name, found=Spread.of([taken * factor for taken in samples[name]]), target=target
        )
        for name, target in question.levels.items()
    ]


def compare(
    question: Question, samples: Mapping[str, Sequence[float]], counts: Sequence[Count] = ()
) -> Group:
    """Compare every candidate with the first one, and those pairs that were asked for."""
    baseline, *others = samples
    spreads = {name: Spread.of(taken) for name, taken in samples.items()}
    rows = [Row(name=baseline, absolute=spreads[baseline])]
    pairs = [(name, name, baseline) for name in others]
    pairs += [(f"{one}, against {other}", one, other) for one, other in question.also]
    for label, one, other in pairs:
        ratio = Spread.of(ratios(samples[one], samples[other]))
        target = question.targets.get(label)
        pair = label != one
        rows.append(
            Row(name=label, absolute=spreads[one], ratio=ratio, target=target, of_pair=pair)
        )
    return Group(
        title=question.title,
        unit=question.unit,
        rounds=len(samples[baseline]),
        rows=tuple(rows),
        growths=tuple(_growth(question, samples)),
        levels=tuple(_levels(question, samples)),
        counts=tuple(counts),
    )
