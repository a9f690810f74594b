"""Programs that are started for real, and ended as an operator ends them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from attrs import define, field

if TYPE_CHECKING:
    from collections.abc import Generator

ROOT: Final = Path(__file__).parents[2]
BIN: Final = Path(sys.executable).parent
PATIENCE: Final = 60.0


def environment(**variables: str) -> dict[str, str]:
    """Return the environment of a program: this one's, without databases, and some more."""
    kept = {name: text for name, text in os.environ.items() if "DATABASE" not in name}
    return {**kept, "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(ROOT), **variables}


def run(*command: str, **variables: str) -> str:
    """Run a command to its end, in the repository's folder; return what it printed."""
    done = subprocess.run(
        [str(BIN / command[0]), *command[1:]],
        cwd=ROOT,
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@define
class Program:
    """A program that runs, and what it has printed."""

    process: subprocess.Popen[str]
    lines: list[str] = field(factory=list[str])

    @property
    def output(self) -> str:
        """All that it has printed so far."""
        return "".join(self.lines)

    def wait_for(self, pattern: str) -> str:
        """Wait until it has printed something; return the first group, or all of it."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            found = re.search(pattern, self.output)
            if found:
                return found.group(found.lastindex or 0)
            assert self.process.poll() is None, self.output
            time.sleep(0.02)
        raise AssertionError(f"no {pattern!r} in:\n{self.output}")

    def read(self) -> None:
        """Read what it prints, in a thread."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)


@contextmanager
def running(*command: str, **variables: str) -> Generator[Program]:
    """Run a program for the length of a block, and end it by SIGTERM."""
    process = subprocess.Popen(
        [str(BIN / command[0]), *command[1:]],
        cwd=ROOT,
        env=environment(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    program = Program(process)
    reader = threading.Thread(target=program.read)
    reader.start()
    try:
        yield program
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(PATIENCE)
        finally:
            process.kill()
            reader.join(PATIENCE)
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
