"""Measure this package side by side with what a user would pick instead."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from attrs import frozen

from benchmarks import (
    async_open_close,
    checkout,
    contention,
    import_time,
    isolation,
    one_statement,
    open_close,
    pipelining,
    pytest_plugin,
    reading,
    round_trips,
    session_costs,
    sqlite_concurrency,
    transactions,
)
from benchmarks.charts import chart
from benchmarks.report import render, summary
from sessionfactory.testing import ServerUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.figures import Table

_RESULTS: Final = Path(__file__).parent / "results"


@frozen
class Benchmark:
    """One table, measured for real or only tried."""

    full: Callable[[], Table]
    quick: Callable[[], Table]


BENCHMARKS: Final = {
    "open_close": Benchmark(
        partial(open_close.measure, open_close.FULL),
        partial(open_close.measure, open_close.QUICK),
    ),
    "async_open_close": Benchmark(
        partial(async_open_close.measure, async_open_close.FULL),
        partial(async_open_close.measure, async_open_close.QUICK),
    ),
    "peers": Benchmark(
        partial(session_costs.measure, session_costs.FULL),
        partial(session_costs.measure, session_costs.QUICK),
    ),
    "checkout": Benchmark(
        partial(checkout.measure, checkout.FULL),
        partial(checkout.measure, checkout.QUICK),
    ),
    "contention": Benchmark(
        partial(contention.measure, contention.FULL),
        partial(contention.measure, contention.QUICK),
    ),
    "round_trips": Benchmark(
        partial(round_trips.measure, round_trips.FULL),
        partial(round_trips.measure, round_trips.QUICK),
    ),
    "one_statement": Benchmark(
        partial(one_statement.measure, one_statement.FULL),
        partial(one_statement.measure, one_statement.QUICK),
    ),
    "reading": Benchmark(
        partial(reading.measure, reading.FULL),
        partial(reading.measure, reading.QUICK),
    ),
    "transactions": Benchmark(
        partial(transactions.measure, transactions.FULL),
        partial(transactions.measure, transactions.QUICK),
    ),
    "pipelining": Benchmark(
        partial(pipelining.measure, pipelining.FULL),
        partial(pipelining.measure, pipelining.QUICK),
    ),
    "sqlite_concurrency": Benchmark(
        partial(sqlite_concurrency.measure, sqlite_concurrency.FULL),
        partial(sqlite_concurrency.measure, sqlite_concurrency.QUICK),
    ),
    "isolation": Benchmark(
        partial(isolation.measure, isolation.FULL),
        partial(isolation.measure, isolation.QUICK),
    ),
    "import_time": Benchmark(
        partial(import_time.measure, import_time.FULL),
        partial(import_time.measure, import_time.QUICK),
    ),
    "pytest_plugin": Benchmark(
        partial(pytest_plugin.measure, pytest_plugin.FULL),
        partial(pytest_plugin.measure, pytest_plugin.QUICK),
    ),
}


def main(
    arguments: Sequence[str] | None = None,
    *,
    benchmarks: dict[str, Benchmark] = BENCHMARKS,
    results: Path = _RESULTS,
) -> None:
    """Measure the tables that were asked for, print them, and say which targets were missed.

    A missed target is no failure of the command: on a busy machine it may be the machine's.

    Args:
        arguments: the command line; by default the process's own.
        benchmarks: what there is to measure.
        results: the directory that ``--write`` writes to.
    """
    given = _parse(arguments, list(benchmarks))
    found: list[Table] = []
    for name in given.tables:
        print(f"measuring {name} …", file=sys.stderr, flush=True)
        benchmark = benchmarks[name]
        try:
            table = benchmark.quick() if given.quick else benchmark.full()
        except ServerUnavailableError as missing:
            print(f"{name} is left out: {missing}\n", flush=True)
            continue
        print(render(table), flush=True)
        if given.write:
            _write(table, results)
        found.append(table)
    print(summary(found))


def _write(table: Table, results: Path) -> None:
    """Write a table as text and as a chart, and what the README shows of it."""
    charts = {table.name: chart(table)}
    if table.highlight is not None:
        charts[f"{table.name}_highlight"] = chart(table, table.highlight)
    results.mkdir(exist_ok=True)
    for name, svg in charts.items():
        (results / f"{name}.svg").write_text(svg, encoding="utf-8")
    text = f"{render(table)}\n![{table.title}]({table.name}.svg)\n"
    (results / f"{table.name}.md").write_text(text, encoding="utf-8")


@frozen
class _Given:
    tables: list[str]
    quick: bool
    write: bool


def _parse(arguments: Sequence[str] | None, names: list[str]) -> _Given:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("tables", nargs="*", metavar="table", help=f"of {', '.join(names)}")
    parser.add_argument("--quick", action="store_true", help="few rounds: does it run at all?")
    parser.add_argument(
        "--write", action="store_true", help="write benchmarks/results/<table>.md and .svg"
    )
    options = parser.parse_args(arguments)
    given = _Given(options.tables or names, options.quick, options.write)
    if unknown := [name for name in given.tables if name not in names]:
        parser.error(f"no table {', '.join(unknown)}; there are {', '.join(names)}")
    if given.quick and given.write:
        parser.error("--quick measures too little to be written down")
    return given


if __name__ == "__main__":
    main()
