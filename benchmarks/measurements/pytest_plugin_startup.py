"""What the pytest plugin costs in a run that does not use it: every run of everybody who has it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import TYPE_CHECKING

from attrs import frozen

import sessionfactory
from benchmarks.tool.figures import Question, Table, Target, Unit, compare
from benchmarks.tool.harness import alternate, fastest

if TYPE_CHECKING:
    from benchmarks.tool.figures import Group

_ALONE = "pytest"
_PLUGIN = "pytest with the plugin"
_OPTIONS = {_ALONE: (), _PLUGIN: ("-p", "sessionfactory.pytest_plugin")}
_NO_TESTS = 5  # pytest's exit code when it found none
_NOTES = (
    "Each sample is a run in an empty directory, with no other plugin than pytest's own.",
    "A round takes the fastest of several samples, and the differences are taken round by round.",
    '"no bytecode": where none may be written (PYTHONDONTWRITEBYTECODE), pytest compiles anew.',
)
_BYTECODE = {
    "bytecode in place": {},
    "no bytecode": {"PYTHONDONTWRITEBYTECODE": "1"},
}
_TARGET = Target("<=", 10)


@frozen(kw_only=True)
class Plan:
    """How much is measured.

    Args:
        rounds: pairs of a run without and a run with the plugin.
        passes: samples of each in a round, of which the fastest is taken.
    """

    rounds: int
    passes: int


FULL = Plan(rounds=31, passes=2)
QUICK = Plan(rounds=2, passes=1)


def measure(plan: Plan) -> Table:
    """Run pytest in turn with and without the plugin."""
    groups: list[Group] = []
    for title, variables in _BYTECODE.items():
        with TemporaryDirectory() as directory:
            groups += _groups(plan, title, _prepared(Path(directory), variables))
    return Table(
        name="pytest_plugin_startup",
        title="an empty pytest run",
        notes=_NOTES,
        groups=tuple(groups),
    )


@frozen
class Ground:
    """Where the runs are, and in which environment."""

    empty: Path
    environment: dict[str, str]


def _prepared(directory: Path, variables: dict[str, str]) -> Ground:
    """Copy the package, so that its bytecode is what the runs have written, and no other."""
    package = Path(sessionfactory.__file__).parent
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(package, directory / "path" / package.name, ignore=ignore)
    empty = directory / "empty"
    empty.mkdir()
    python = {name: value for name, value in os.environ.items() if not name.startswith("PY")}
    path = {"PYTHONPATH": str(directory / "path"), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return Ground(empty, python | path | variables)


def _groups(plan: Plan, title: str, ground: Ground) -> list[Group]:
    candidates = {name: partial(_run, ground, options) for name, options in _OPTIONS.items()}
    runs = alternate(candidates, plan.rounds * plan.passes)
    return [
        compare(
            Question(
                title=f"{title}: {what} time", unit=Unit("ms", 1e3), growth={_PLUGIN: _TARGET}
            ),
            fastest(
                {name: [times[what] for times in taken] for name, taken in runs.items()},
                plan.passes,
            ),
        )
        for what in ("processor", "wall")
    ]


def _run(ground: Ground, options: tuple[str, ...]) -> dict[str, float]:
    """Run pytest once, and return the seconds that it took."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options]
    began = perf_counter()
    with subprocess.Popen(
        command, cwd=ground.empty, env=ground.environment, stdout=subprocess.DEVNULL
    ) as run:
        _, status, used = os.wait4(run.pid, 0)
        run.returncode = os.waitstatus_to_exitcode(status)
    wall = perf_counter() - began
    assert run.returncode == _NO_TESTS, f"pytest ended with {run.returncode}"
    return {"processor": used.ru_utime + used.ru_stime, "wall": wall}
