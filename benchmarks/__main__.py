"""Measure this package side by side with what a user would pick instead."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from attrs import frozen

from benchmarks.measurements import (
    fastapi_requests,
    import_time,
    isolation_of_tests,
    one_statement_transaction,
    pipelined_transaction,
    pool_checkout,
    pool_contention,
    prepared_reads,
    pytest_plugin_startup,
    round_trips_counted,
    session_by_package,
    session_open_close,
    session_open_close_async,
    sqlite_concurrency,
    transaction_retries,
)
from benchmarks.tool.charts import chart
from benchmarks.tool.report import recorded, render, summary
from sessionfactory.testing import ServerUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.tool.figures import Table

_RESULTS: Final = Path(__file__).parent / "results"


@frozen
class Benchmark:
    """One table, measured for real or only tried."""

    full: Callable[[], Table]
    quick: Callable[[], Table]


BENCHMARKS: Final = {
    "session_open_close": Benchmark(
        partial(session_open_close.measure, session_open_close.FULL),
        partial(session_open_close.measure, session_open_close.QUICK),
    ),
    "session_open_close_async": Benchmark(
        partial(session_open_close_async.measure, session_open_close_async.FULL),
        partial(session_open_close_async.measure, session_open_close_async.QUICK),
    ),
    "session_by_package": Benchmark(
        partial(session_by_package.measure, session_by_package.FULL),
        partial(session_by_package.measure, session_by_package.QUICK),
    ),
    "pool_checkout": Benchmark(
        partial(pool_checkout.measure, pool_checkout.FULL),
        partial(pool_checkout.measure, pool_checkout.QUICK),
    ),
    "pool_contention": Benchmark(
        partial(pool_contention.measure, pool_contention.FULL),
        partial(pool_contention.measure, pool_contention.QUICK),
    ),
    "round_trips_counted": Benchmark(
        partial(round_trips_counted.measure, round_trips_counted.FULL),
        partial(round_trips_counted.measure, round_trips_counted.QUICK),
    ),
    "one_statement_transaction": Benchmark(
        partial(one_statement_transaction.measure, one_statement_transaction.FULL),
        partial(one_statement_transaction.measure, one_statement_transaction.QUICK),
    ),
    "prepared_reads": Benchmark(
        partial(prepared_reads.measure, prepared_reads.FULL),
        partial(prepared_reads.measure, prepared_reads.QUICK),
    ),
    "transaction_retries": Benchmark(
        partial(transaction_retries.measure, transaction_retries.FULL),
        partial(transaction_retries.measure, transaction_retries.QUICK),
    ),
    "pipelined_transaction": Benchmark(
        partial(pipelined_transaction.measure, pipelined_transaction.FULL),
        partial(pipelined_transaction.measure, pipelined_transaction.QUICK),
    ),
    "sqlite_concurrency": Benchmark(
        partial(sqlite_concurrency.measure, sqlite_concurrency.FULL),
        partial(sqlite_concurrency.measure, sqlite_concurrency.QUICK),
    ),
    "isolation_of_tests": Benchmark(
        partial(isolation_of_tests.measure, isolation_of_tests.FULL),
        partial(isolation_of_tests.measure, isolation_of_tests.QUICK),
    ),
    "fastapi_requests": Benchmark(
        partial(fastapi_requests.measure, fastapi_requests.FULL),
        partial(fastapi_requests.measure, fastapi_requests.QUICK),
    ),
    "import_time": Benchmark(
        partial(import_time.measure, import_time.FULL),
        partial(import_time.measure, import_time.QUICK),
    ),
    "pytest_plugin_startup": Benchmark(
        partial(pytest_plugin_startup.measure, pytest_plugin_startup.FULL),
        partial(pytest_plugin_startup.measure, pytest_plugin_startup.QUICK),
    ),
}


def main(
    arguments: Sequence[str] | None = None,
    *,
    benchmarks: dict[str, Benchmark] = BENCHMARKS,
    results: Path = _RESULTS,
) -> None:
    """Measure the tables that are given, print them, and list the targets that were missed.

    A missed target does not fail the command: a busy machine may be the reason.

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
        found.append(table)
        if given.write:  # after each, so that a run that is interrupted keeps what it has
            _write(table, results)
    print(summary(found))


def _write(table: Table, results: Path) -> None:
    """Write a table into the one file of results, and the chart that the pages show."""
    results.mkdir(exist_ok=True)
    file = results / "results.md"
    earlier = file.read_text(encoding="utf-8") if file.exists() else ""
    file.write_text(recorded([table], earlier), encoding="utf-8")
    if table.highlight is not None:
        svg = chart(table, table.highlight)
        (results / "results.svg").write_text(svg, encoding="utf-8")


@frozen
class _Given:
    tables: list[str]
    quick: bool
    write: bool


def _parse(arguments: Sequence[str] | None, names: list[str]) -> _Given:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("tables", nargs="*", metavar="table", help=f"of {', '.join(names)}")
    parser.add_argument("--quick", action="store_true", help="few rounds: does it run at all?")
    parser.add_argument("--write", action="store_true", help="write benchmarks/results")
    options = parser.parse_args(arguments)
    given = _Given(options.tables or names, options.quick, options.write)
    if unknown := [name for name in given.tables if name not in names]:
        parser.error(f"no table {', '.join(unknown)}; there are {', '.join(names)}")
    if given.quick and given.write:
        parser.error("--quick measures too little to be written down")
    return given


if __name__ == "__main__":
    main()
