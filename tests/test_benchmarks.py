"""The benchmarks: the arithmetic of their harness, and the shape of each table, never a time."""

from __future__ import annotations

import gc
import threading
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING

import pytest

from benchmarks import (
    checkout,
    contention,
    import_time,
    isolation,
    one_statement,
    open_close,
    pytest_plugin,
    round_trips,
    servers,
    sqlite_concurrency,
)
from benchmarks.__main__ import BENCHMARKS, Benchmark, main
from benchmarks.figures import (
    Count,
    Group,
    Growth,
    Question,
    Row,
    Spread,
    Table,
    Target,
    Unit,
    compare,
    ratios,
)
from benchmarks.harness import alternate, fastest, timed, together
from benchmarks.report import render, summary
from sessionfactory.testing import ServerUnavailableError

if TYPE_CHECKING:
    from pathlib import Path

    from sessionfactory.testing import PostgresServer

LOW = Target("<=", 0.97)
OURS = "SqlAlchemySessionFactory"


def row(low: float, median: float, high: float, target: Target | None = None) -> Row:
    return Row(name="a", absolute=Spread(1, 1, 1), ratio=Spread(low, median, high), target=target)


def table(*rows: Row, counts: tuple[Count, ...] = ()) -> Table:
    group = Group(title="speed", unit=Unit("µs", 1e6), rounds=3, rows=rows, counts=counts)
    return Table(name="made_up", title="made up", notes=("A note.",), groups=(group,))


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


class TestTables:
    """Each table with tiny numbers, through the function that the command calls."""

    def test_open_close(self) -> None:
        """Sessions and transactions are compared idle, in memory and on a file."""
        found = open_close.measure(open_close.Plan(rounds=1, passes=1, idle=1, busy=1))
        assert [group.title for group in found.groups] == [
            "open + close, no database work",
            "begin() scope, no database work",
            "open + SELECT 1 + close, memory",
            "begin() scope with SELECT 1, memory",
            "open + SELECT 1 + close, a file",
            "begin() scope with SELECT 1, a file",
        ]
        for group in found.groups:
            assert {"sessionmaker", OURS, "Session(engine)", "scoped_session"} <= {
                found.name for found in group.rows
            }
        targets = [found.target for group in found.groups[:2] for found in group.rows[1:2]]
        assert targets == [Target("<=", 0.97), Target("<=", 0.95)]

    def test_sqlite_concurrency(self) -> None:
        """The factory loses no update and raises no error; rates and counts are all there."""
        plan = sqlite_concurrency.Plan(
            storms=1, threads=2, updates=4, rounds=1, readers=2, reads=2, window=0.02
        )
        found = sqlite_concurrency.measure(plan)
        assert [group.title for group in found.groups] == [
            "4 read-modify-writes in begin(), 2 threads, two statements",
            "4 read-modify-writes in begin(), 2 threads, the ORM",
            "2 concurrent readers, one row a session",
            "2 concurrent readers, 100 rows a session",
            "2 readers of 100 rows beside a writer: reads",
            "2 readers of 100 rows beside a writer: writes",
        ]
        for group in found.groups[:2]:
            counts = {count.name: count for count in group.counts}
            assert counts[f"{OURS}: lost updates"].met
            assert counts[f"{OURS}: lost updates"].out_of == 4
            assert counts[f"{OURS}: errors"].met
        targets = [group.rows[1].target for group in found.groups]
        assert targets == [Target(">=", 4), None, None, Target(">=", 0.95), None, None]

    @pytest.fixture
    def socket(self, postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
        """Tables use the server of the tests instead of one of their own."""
        monkeypatch.setattr(servers, "PostgresServer", lambda: nullcontext(postgres_server))

    @pytest.mark.usefixtures("socket")
    def test_checkout(self) -> None:
        """The pool with all that guards it is compared with bare ones, and within a scope."""
        found = checkout.measure(checkout.Plan(rounds=1, passes=1, number=1))
        everything = f"{OURS}, everything on"
        beside = f"{everything}, against QueuePool, pool_pre_ping=True"
        pools, scopes = found.groups
        assert [line.name for line in pools.rows] == [
            "QueuePool",
            "QueuePool, pool_pre_ping=True",
            "FairPool alone",
            OURS,
            everything,
            "psycopg_pool",
            beside,
        ]
        targets = {line.name: line.target for line in pools.rows if line.target}
        assert targets == {everything: Target("<=", 1.4), beside: Target("<=", 0.35)}
        assert {growth.name for growth in scopes.growths} == {OURS, everything}
        assert scopes.rows[-1].target == Target("<=", 1)

    @pytest.mark.usefixtures("socket")
    def test_round_trips(self) -> None:
        """A transaction of one statement is three round trips, and a ping of psycopg's one more."""
        found = round_trips.measure(round_trips.Plan(scopes=2))
        counted = {
            group.title: {count.name: count.value for count in group.counts}
            for group in found.groups
        }
        plain, asking = "sessionmaker", "sessionmaker, pool_pre_ping=True"
        assert counted == {
            "psycopg": {asking: 4, plain: 3, OURS: 3},
            "psycopg2": {asking: 4, plain: 3, OURS: 3},
            "asyncpg": {asking: 6, plain: 3, OURS: 3},
        }

    @pytest.mark.usefixtures("socket")
    def test_one_statement(self) -> None:
        """Both drivers are measured on the socket and behind a proxy, with pre-ping as baseline."""
        plan = one_statement.Plan(rounds=1, window=0.001, latencies=(0.0005,))
        found = one_statement.measure(plan)
        assert [group.title for group in found.groups] == [
            "psycopg, Unix socket",
            "psycopg, 0.5 ms round trip",
            "asyncpg, Unix socket",
            "asyncpg, 0.5 ms round trip",
        ]
        rows = [line.name for line in found.groups[0].rows]
        assert rows[:3] == ["sessionmaker, pool_pre_ping=True", "sessionmaker", OURS]
        targets = [group.rows[2].target for group in found.groups]
        assert targets == [None, Target(">=", 1.2), None, Target(">=", 1.7)]
        assert found.notes[-1].startswith("Round trips as measured, in ms: Unix socket: ")

    @pytest.mark.usefixtures("socket")
    def test_contention(self) -> None:
        """Nobody waits in vain for our pool; throughput, waits and shares have their targets."""
        plan = contention.Plan(rounds=1, window=0.05, threads=(7,), tasks=(7,))
        found = contention.measure(plan)
        assert [group.title for group in found.groups] == [
            f"7 {who}: {what}"
            for who in ("threads", "tasks")
            for what in ("throughput", "longest wait", "fewest / most")
        ]
        rates, waits, shares = found.groups[:3]
        assert [line.target for line in rates.rows] == [None, Target(">=", 0.97), None]
        assert [line.name for line in waits.rows] == ["psycopg_pool", "QueuePool", OURS]
        assert waits.rows[2].target == Target("<=", 1.2)
        assert waits.counts[1].name == f"{OURS}: timeouts"
        assert waits.counts[1].met
        assert [level.target for level in shares.levels] == [Target(">=", 0.95)]

    def test_isolation(self, postgres_server: PostgresServer) -> None:
        """Each way to isolate tests is compared with none, on PostgreSQL and in memory."""
        plan = isolation.Plan(servers=1, memory=1, passes=1, tables=3, rows=2, in_a_row=1)
        found = isolation.measure(plan)
        assert found.title == "isolated tests, 3 tables with 6 rows"
        assert [group.title for group in found.groups] == ["PostgreSQL", "SQLite in memory"]
        on_postgresql, in_memory = found.groups
        assert [line.name for line in on_postgresql.rows] == [
            "no isolation",
            "RollbackSessionFactory",
            "CloningSessionFactory",
            "CloningSessionFactory, back to back",
            "CloningSessionFactory(ahead=0)",
            "TRUNCATE and seed",
            "drop_all, create_all and seed",
        ]
        assert on_postgresql.rows[1].target == Target("<=", 1.7)
        assert [line.name for line in in_memory.rows] == [
            "no isolation",
            "InMemorySessionFactory.reset()",
            "RollbackSessionFactory",
            "create_all and seed",
        ]
        assert in_memory.rows[1].target == Target("<=", 1.6)

    def test_isolation_without_a_server(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where PostgreSQL cannot be had, its rows are left out, and the table says so."""

        def fail() -> None:
            raise ServerUnavailableError("there are no binaries")

        monkeypatch.setattr(isolation, "PostgresServer", fail)
        found = isolation.measure(
            isolation.Plan(servers=1, memory=1, passes=1, tables=3, rows=2, in_a_row=1)
        )
        assert [group.title for group in found.groups] == ["SQLite in memory"]
        assert found.notes[-1] == "PostgreSQL is left out: there are no binaries"

    def test_import_time(self) -> None:
        """Both ways to import are compared with SQLAlchemy, and the bare interpreter is shown."""
        found = import_time.measure(import_time.Plan(rounds=1))
        alone, whole = found.groups
        names = ["sqlalchemy.orm", "sessionfactory", "sessionfactory, as a pytest plugin"]
        assert [line.name for line in alone.rows] == names
        assert [line.target for line in alone.rows[1:]] == [Target("<=", 0.10)] * 2
        assert [line.name for line in whole.rows] == ["nothing", *names]

    def test_pytest_plugin(self) -> None:
        """An empty run is compared with one that has the plugin, where bytecode is and is not."""
        found = pytest_plugin.measure(pytest_plugin.Plan(rounds=1, passes=1))
        assert [group.title for group in found.groups] == [
            "bytecode in place: processor time",
            "bytecode in place: wall time",
            "no bytecode: processor time",
            "no bytecode: wall time",
        ]
        for group in found.groups:
            assert [line.name for line in group.rows] == ["pytest", "pytest with the plugin"]
            assert [growth.target for growth in group.growths] == [Target("<=", 10)]


class TestCommand:
    @pytest.fixture
    def benchmarks(self) -> dict[str, Benchmark]:
        return {
            name: Benchmark(
                full=partial(table, row(1, 1, 1, LOW)), quick=partial(table, row(2, 2, 2))
            )
            for name in ("one", "two")
        }

    def test_every_table(self) -> None:
        """The command knows every table of this package."""
        assert list(BENCHMARKS) == [
            "open_close",
            "checkout",
            "contention",
            "round_trips",
            "one_statement",
            "sqlite_concurrency",
            "isolation",
            "import_time",
            "pytest_plugin",
        ]

    def test_all(
        self, benchmarks: dict[str, Benchmark], capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        """Without arguments every table is measured and printed, and nothing is written."""
        main([], benchmarks=benchmarks, results=tmp_path / "results")
        out = capsys.readouterr().out
        assert out.count("# made_up: made up") == 2
        assert "Targets: 0 met, 2 missed." in out
        assert list(tmp_path.iterdir()) == []

    def test_write(
        self, benchmarks: dict[str, Benchmark], capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        """``--write`` writes what was printed, a file for each table that was asked for."""
        main(["two", "--write"], benchmarks=benchmarks, results=tmp_path / "results")
        written = tmp_path / "results" / "two.md"
        assert list(tmp_path.rglob("*.md")) == [written]
        assert written.read_text(encoding="utf-8") in capsys.readouterr().out

    def test_quick(
        self, benchmarks: dict[str, Benchmark], capsys: pytest.CaptureFixture[str]
    ) -> None:
        """``--quick`` measures the small plan."""
        main(["one", "--quick"], benchmarks=benchmarks)
        assert "2.000" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["three"], "no table three; there are one, two"),
            (["--quick", "--write"], "--quick measures too little to be written down"),
        ],
    )
    def test_refused(
        self,
        benchmarks: dict[str, Benchmark],
        arguments: list[str],
        message: str,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        """An unknown table, and quick figures to be kept, are refused with a sentence."""
        with pytest.raises(SystemExit, match="2"):
            main(arguments, benchmarks=benchmarks)
        assert message in capsys.readouterr().err
