"""Means to see what became of a server's processes, without waiting blindly."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Mapping

    from sessionfactory.testing.servers._process import Keeper

SLEEPER = ["/bin/sleep", "1000"]


linux_only = pytest.mark.skipif(sys.platform != "linux", reason="watches processes by pidfd")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")


class Watch:
    """Sees the end of processes that are not ours; a pidfd is never mistaken for another's."""

    def __init__(self) -> None:
        self._descriptors: dict[int, int] = {}

    def on(self, pids: Iterable[int]) -> None:
        """Begin to watch."""
        for pid in pids:
            with suppress(ProcessLookupError):  # one of a server's own workers ended just now
                self._descriptors[pid] = os.pidfd_open(pid)

    def until_all_ended(self, timeout: float = 20.0) -> None:
        """Wait until none of the watched runs, and complain after ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        while self._descriptors:
            left = max(0.0, deadline - time.monotonic())
            ended = select.select(self._descriptors.values(), [], [], left)[0]
            assert ended, f"still running: {list(self._descriptors)}"
            for pid, descriptor in list(self._descriptors.items()):
                if descriptor in ended:
                    os.close(self._descriptors.pop(pid))

    def close(self) -> None:
        """Watch no more."""
        for descriptor in self._descriptors.values():
            os.close(descriptor)


def processes_in(directory: Path) -> list[int]:
    """Return the processes that work in a directory or below: those of a server."""
    found: list[int] = []
    for link in Path("/proc").glob("[0-9]*/cwd"):
        try:
            if link.readlink().is_relative_to(directory):
                found.append(int(link.parent.name))
        except OSError:  # ended meanwhile, or another user's
            continue
    return found


def until(condition: Callable[[], bool], timeout: float = 20.0) -> None:
    """Look until a condition holds, and complain after ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.005)


@contextmanager
def telling(
    *command: str, env: Mapping[str, str] | None = None
) -> Generator[tuple[subprocess.Popen[str], Callable[[], str]]]:
    """Run a program in a session of its own, and give it and a way to hear its next line."""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=env, start_new_session=True
    ) as process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline
        finally:
            if process.poll() is None:
                os.killpg(process.pid, 9)


def spawn(keeper: Keeper, command: list[str]) -> int:
    """Have a keeper start a program."""
    return keeper.spawn(
        command,
        environment={"PATH": "/usr/bin:/bin"},
        log=keeper.directory / "log",
        farewell=signal.SIGTERM,
    )
