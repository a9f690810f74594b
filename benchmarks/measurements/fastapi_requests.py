"""Requests of a FastAPI service over real sockets, many at once: how many, how late the last."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from functools import partial
from statistics import quantiles
from time import perf_counter
from typing import TYPE_CHECKING, Final

from attrs import frozen

from benchmarks.setups.plain_and_ours import OURS
from benchmarks.setups.servers import socket_only
from benchmarks.tool.figures import Question, Table, Target, Unit, compare
from benchmarks.tool.harness import alternate

if TYPE_CHECKING:
    from collections.abc import Generator

    from sqlalchemy import URL

PRE_PING: Final = "sessionmaker, pre-ping"
_APPS: Final = {PRE_PING: "plain", OURS: "ours"}
_BODY: Final = b'{"text": "buy milk"}'
_WRITE: Final = (
    b"POST /notes HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(_BODY), _BODY)
)
_READ: Final = b"GET /notes/1 HTTP/1.1\r\nHost: x\r\n\r\n"
_READS_A_WRITE: Final = 4
_ADDRESS: Final = re.compile(r"running on http://[\d.]+:(\d+)")
_NOTES: Final = (
    "examples/fastapi_service under uvicorn, one process, psycopg, PostgreSQL on a Unix socket.",
    "Every client sends the next request when it has read a response: a write, four reads, ….",
    "Both have pools of 5 and 10 more. The plain one injects the service without dependencies.",
)


@frozen(kw_only=True)
class Plan:
    """How much is measured.

    Args:
        rounds: samples of each candidate.
        clients: connections that are used at once.
        window: seconds that a sample takes.
    """

    rounds: int
    clients: int
    window: float


FULL = Plan(rounds=15, clients=32, window=3.0)
QUICK = Plan(rounds=2, clients=4, window=0.2)


@frozen
class Sample:
    """What the clients of one window saw."""

    rate: float
    """Requests a second."""
    late: float
    """The 99th percentile of the seconds that a response took."""


def measure(plan: Plan) -> Table:
    """Measure the service on either kind of factory, in turn."""
    with socket_only() as url, ExitStack() as stack:
        ports = {name: stack.enter_context(_serving(app, url)) for name, app in _APPS.items()}
        samples = alternate(
            {name: partial(_sample, port, plan) for name, port in ports.items()}, plan.rounds
        )
    rates = {name: [each.rate for each in taken] for name, taken in samples.items()}
    lates = {name: [each.late for each in taken] for name, taken in samples.items()}
    groups = (
        compare(
            Question(
                title=f"{plan.clients} clients",
                unit=Unit("requests a second", better="more"),
                targets={OURS: Target(">=", 0.97)},
            ),
            rates,
        ),
        compare(
            Question(
                title=f"{plan.clients} clients, 99th percentile",
                unit=Unit("ms", factor=1e3),
                targets={OURS: Target("<=", 1.0)},
            ),
            lates,
        ),
    )
    return Table(
        name="fastapi_requests", title="requests of a FastAPI service", notes=_NOTES, groups=groups
    )


@contextmanager
def _serving(app: str, url: URL) -> Generator[int]:
    """Serve an application in a process of its own; yield its port."""
    address = url.set(drivername="postgresql+psycopg").render_as_string(hide_password=False)
    command = [
        sys.executable,
        "-m",
        "uvicorn",
        "--factory",
        f"benchmarks.setups.fastapi_service:{app}",
    ]
    process = subprocess.Popen(
        [*command, "--port", "0", "--no-access-log"],
        env={**os.environ, "DATABASE_URL": address},
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            lines = (
                re.search(r"running on http://[\d.]+:(\d+)", line) for line in process.stderr or ()
            )
            port = next((int(found.group(1)) for found in lines if found), None)
            if port is None:
                raise RuntimeError(f"the service {app!r} did not start")
            yield port
        finally:
            process.terminate()


def _sample(port: int, plan: Plan) -> Sample:
    return asyncio.run(_clients(port, plan))


async def _clients(port: int, plan: Plan) -> Sample:
    await _client(port, 0, 0)  # so that there is something to read
    began = perf_counter()
    taken = await asyncio.gather(
        *(_client(port, began + plan.window, turn) for turn in range(plan.clients))
    )
    seconds = [each for times in taken for each in times]
    return Sample(len(seconds) / (perf_counter() - began), quantiles(seconds, n=100)[-1])


async def _client(port: int, end: float, turn: int) -> list[float]:
    """Send requests one after the other until the end, and at least one."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    taken: list[float] = []
    began = perf_counter()
    try:
        while not taken or began < end:
            writer.write(_READ if turn % (_READS_A_WRITE + 1) else _WRITE)
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", head)
            if not head.startswith(b"HTTP/1.1 20") or length is None:
                raise RuntimeError(head.decode())
            await reader.readexactly(int(length.group(1)))
            now = perf_counter()
            taken.append(now - began)
            began = now
            turn += 1
    finally:
        writer.close()
    return taken
