"""Where the calls and the instructions of a scope go: now, in another version, and plain.

Counts are repeatable where times are not. ``python -m benchmarks.measurements.account [DIRECTORY]``
prints the table; the directory has another version of the package, ``--calls`` leaves out
the instructions, for which valgrind is needed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from benchmarks.setups.servers import socket_only

_HERE: Final = Path(__file__).parents[2]
_STEPS: Final = _HERE / "benchmarks" / "tool" / "counted_steps.py"
_VALGRIND: Final = ("valgrind", "-q", "--tool=callgrind", "--instr-atstart=no")

Counted = dict[str, Any]


def count(whose: str, what: str, server: str, package: Path) -> Counted:
    """Count all steps in a process of its own.

    Args:
        whose: ``"ours"`` or ``"plain"``.
        what: ``"calls"`` or ``"instructions"``.
        server: a PostgreSQL server, for psycopg.
        package: the directory from which the package is imported.
    """
    under = () if what == "calls" else _VALGRIND
    environment = {**os.environ, "PYTHONPATH": str(package), "PYTHONHASHSEED": "0"}
    with TemporaryDirectory() as directory:
        run = subprocess.run(
            [*under, sys.executable, str(_STEPS), whose, what, server],
            env=environment,
            cwd=directory,
            stdout=subprocess.PIPE,
            check=True,
        )
    found: Counted = json.loads(run.stdout)
    return found


def table(calls: dict[str, Counted], instructions: dict[str, Counted]) -> str:
    """Return the table; each mapping has the counts of each candidate."""
    names = list(calls)
    lines = [
        f"| step | calls of Python + of C: {', '.join(names)} | 1,000 instructions: same |",
        "| --- | --- | --- |",
    ]
    for step in calls["now"]:
        shown = [" + ".join(f"{n:.0f}" for n in calls[name].get(step, ())) or "-" for name in names]
        weighed = [instructions.get(name, {}).get(step) for name in names]
        figures = ["-" if found is None else f"{found / 1e3:.0f}" for found in weighed]
        lines.append(f"| {step} | {' / '.join(shown)} | {' / '.join(figures)} |")
    return "\n".join(lines)


def main() -> None:
    """Count and print."""
    arguments = [each for each in sys.argv[1:] if each != "--calls"]
    candidates = {"now": ("ours", _HERE), "plain": ("plain", _HERE)}
    if arguments:
        candidates = {"before": ("ours", Path(arguments[0]).resolve()), **candidates}
    with socket_only() as url:
        server = url.render_as_string(hide_password=False)
        kinds = ("calls",) if "--calls" in sys.argv else ("calls", "instructions")
        counted = {
            what: {
                name: count(whose, what, server, package)
                for name, (whose, package) in candidates.items()
            }
            for what in kinds
        }
    sys.stdout.write(table(counted["calls"], counted.get("instructions", {})) + "\n")


if __name__ == "__main__":
    main()
