"""The steps whose calls and instructions are counted, each as a loop: run by ``account``.

It runs with any version of the package, so that two can be compared, and imports nothing of the
benchmarks that an older one may lack.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from sqlalchemy import QueuePool, create_engine, text
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import sessionmaker

from sessionfactory import (
    AsyncSqlAlchemySessionFactory,
    DatabaseSettings,
    SqlAlchemySessionFactory,
)

Loop = Callable[[int], object]
"""Runs a step so many times."""

_SELECT: Final = text("SELECT 1")
_INSERT: Final = text("INSERT INTO counted VALUES (1)")
_TABLE: Final = text("CREATE TABLE IF NOT EXISTS counted (number INTEGER)")
_PLAIN: Final[dict[str, Any]] = {"autoflush": True, "expire_on_commit": False}
_WARM_UP: Final = 20
_LOOPS: Final = 40


def _threads(stack: ExitStack, url: str, *, plain: bool) -> dict[str, Loop]:  # noqa: C901 - a function for each step
    sessions: Any
    if plain:
        engine = create_engine(url, pool_size=5, poolclass=QueuePool)
        stack.callback(engine.dispose)
        sessions = sessionmaker(engine, **_PLAIN)
    else:
        sessions = stack.enter_context(SqlAlchemySessionFactory(DatabaseSettings(url)))
        engine = sessions.engine
    with engine.begin() as connection:
        connection.execute(_TABLE)
    pool = engine.pool

    def opened(number: int) -> None:
        for _ in range(number):
            with sessions():
                pass

    def checked_out(number: int) -> None:
        for _ in range(number):
            pool.connect().close()

    def connected(number: int) -> None:
        for _ in range(number):
            with sessions.begin() as session:
                session.connection()

    def begun(statement: Any) -> Loop:
        def run(number: int) -> None:
            for _ in range(number):
                with sessions.begin() as session:
                    session.execute(statement)

        return run

    return {
        "open + close": opened,
        "checkout + checkin": checked_out,
        "begin(), connection()": connected,
        "begin(), SELECT 1": begun(_SELECT),
        "begin(), INSERT": begun(_INSERT),
    }


def _tasks(stack: ExitStack, url: str, *, plain: bool) -> dict[str, Loop]:  # noqa: C901 - as in threads
    runner = stack.enter_context(asyncio.Runner())
    sessions: Any
    if plain:
        engine = create_async_engine(url)
        sessions = async_sessionmaker(engine, **_PLAIN)
        stack.callback(lambda: runner.run(engine.dispose()))
    else:
        sessions = AsyncSqlAlchemySessionFactory(DatabaseSettings(url))
        engine = sessions.engine
        stack.callback(lambda: runner.run(sessions.aclose()))

    async def create() -> None:
        async with engine.begin() as connection:
            await connection.execute(_TABLE)

    runner.run(create())

    async def opened(number: int) -> None:
        for _ in range(number):
            async with sessions():
                pass

    async def connected(number: int) -> None:
        for _ in range(number):
            async with sessions.begin() as session:
                await session.connection()

    def begun(statement: Any) -> Any:
        async def run(number: int) -> None:
            for _ in range(number):
                async with sessions.begin() as session:
                    await session.execute(statement)

        return run

    def loop(step: Any) -> Loop:
        return lambda number: runner.run(step(number))

    return {
        "open + close": loop(opened),
        "begin(), connection()": loop(connected),
        "begin(), SELECT 1": loop(begun(_SELECT)),
        "begin(), INSERT": loop(begun(_INSERT)),
    }


@contextmanager
def _steps(server: str, *, plain: bool) -> Generator[dict[str, Loop]]:
    """Give every step, by its name."""
    steps: dict[str, Loop] = {}
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for driver, url in {
            "sqlite": f"sqlite:///{directory}/threads.db",
            "psycopg": server,
            "aiosqlite": f"sqlite+aiosqlite:///{directory}/tasks.db",
            "asyncpg": server.replace("+psycopg", "+asyncpg"),
        }.items():
            make = _tasks if driver in {"aiosqlite", "asyncpg"} else _threads
            found = make(stack, url, plain=plain) if url else {}
            steps |= {f"{driver}: {name}": run for name, run in found.items()}
        yield steps


def _calls(run: Loop) -> tuple[float, float]:
    """Return the calls of Python functions and of C functions that a step makes in this thread."""
    counted = {"call": 0, "c_call": 0}

    def note(_frame: object, kind: str, _argument: object) -> None:
        if kind in counted:
            counted[kind] += 1

    found: list[tuple[int, int]] = []
    for number in (_LOOPS, 2 * _LOOPS):  # the difference is without what runs once
        counted.update(call=0, c_call=0)
        sys.setprofile(note)
        try:
            run(number)
        finally:
            sys.setprofile(None)
        found.append((counted["call"], counted["c_call"]))
    (call, c_call), (more, more_c) = found
    return (more - call) / _LOOPS, (more_c - c_call) / _LOOPS


def _instructions(run: Loop) -> float:
    """Return the instructions of a step, counted by callgrind, in which this process runs."""
    _callgrind("instrumentation", "on")
    found: list[int] = []
    for number in (_LOOPS, 2 * _LOOPS):
        _callgrind("zero")
        before = set(Path.cwd().glob("callgrind.out.*"))
        run(number)
        _callgrind("dump")
        (dump,) = set(Path.cwd().glob("callgrind.out.*")) - before
        totals = [line for line in dump.read_text().splitlines() if line.startswith("totals:")]
        found.append(int(totals[0].split()[1]))
        dump.unlink()
    _callgrind("instrumentation", "off")
    return (found[1] - found[0]) / _LOOPS


def _callgrind(*command: str) -> None:
    # It is not waited for in a system call: valgrind serves a command while instructions run.
    sent = subprocess.Popen(
        ["vgdb", f"--pid={os.getpid()}", *command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while sent.poll() is None:
        pass


def main() -> None:
    """Count: ``plain`` or ``ours``, ``calls`` or ``instructions``, and the URL of a server."""
    whose, what, server, *only = sys.argv[1:]
    counted: dict[str, Any] = {}
    with _steps(server, plain=whose == "plain") as steps:
        for name, run in steps.items():
            if only and not any(part in name for part in only):
                continue
            run(_WARM_UP)
            counted[name] = _calls(run) if what == "calls" else _instructions(run)
    sys.stdout.write(json.dumps(counted))


if __name__ == "__main__":
    main()
