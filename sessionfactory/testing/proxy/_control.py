"""The line to the proxy's process: commands that are in force when they return, and events."""

from __future__ import annotations

import json
import select
import socket
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from threading import Condition
from time import monotonic
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_START = "import sys; sys.path.append(sys.argv[1]); from _engine.child import main; main()"
_PATIENCE = 30.0
"""Seconds after which a process that does not answer is given up; it answers in microseconds."""


class Control:
    """Starts the process and talks to it; safe to use from several threads.

    There is no reading thread: whoever waits reads for all, so that a process with a proxy can be
    forked like one without.
    """

    def __init__(self, protocol: str) -> None:
        ours, theirs = socket.socketpair()
        self._socket = ours
        self._readable = select.poll()
        self._readable.register(ours, select.POLLIN)
        self._changed = Condition()
        self._reading = False
        self._closed = False
        self._line = b""
        self._last = 0
        self._answers: dict[int, dict[str, Any]] = {}
        self._events: defaultdict[int, set[str]] = defaultdict(set)
        self.port: int = 0
        """Where the proxy listens."""
        # Isolated from the environment's Python settings and from the user's modules, and without
        # a share in Ctrl-C; it ends when it reads the end of its standard input.
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - it is our own
                [sys.executable, "-I", "-c", _START, str(Path(__file__).parent), protocol],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
            )
        try:
            self._await(lambda: bool(self.port))
        except BaseException:
            self.close()
            raise

    def request(self, do: str, **arguments: object) -> Any:
        """Have a command obeyed; give its answer.

        Raises:
            RuntimeError: the proxy is closed, or its process has died or failed.
        """
        with self._changed:
            self._check_open()
            self._last += 1
            number = self._last
            command = {"id": number, "do": do, **arguments}
            try:
                self._socket.sendall(json.dumps(command).encode() + b"\n")
            except OSError:
                raise self._lost() from None
        self._await(lambda: number in self._answers)
        answer = self._answers.pop(number)
        if "error" in answer:
            raise RuntimeError(f"the proxy could not obey {do!r}: {answer['error']}")
        return answer["value"]

    def has_happened(self, trap: int, event: str) -> bool:
        """Whether a trap has reported this event; false, too, if nobody has read it yet."""
        return event in self._events.get(trap, ())

    def wait(self, happened: Callable[[], bool], timeout: float) -> bool:
        """Read until something has happened, or until so many seconds have passed."""
        deadline = monotonic() + timeout
        with self._changed:
            while not happened():
                self._check_open()
                left = deadline - monotonic()
                if self._reading:
                    if left <= 0:
                        return False
                    self._changed.wait(left)
                elif not self._read(max(0.0, left)):
                    return happened()
        return True

    def close(self) -> None:
        """End the process, and wait until it has ended; idempotent."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            # Wakes a thread that reads, which close() would not.
            self._socket.shutdown(socket.SHUT_RDWR)
            self._changed.wait_for(lambda: not self._reading)
            self._socket.close()
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _await(self, answered: Callable[[], bool]) -> None:
        if not self.wait(answered, _PATIENCE):
            raise RuntimeError(f"the proxy's process has not answered for {_PATIENCE:g} s")

    def _read(self, timeout: float) -> bool:
        """Read what comes within so many seconds, letting other threads go on meanwhile."""
        self._reading = True
        self._changed.release()
        try:
            if not self._readable.poll(timeout * 1000):
                return False
            data = self._socket.recv(1 << 16)
        except OSError:
            data = b""
        finally:
            self._changed.acquire()
            self._reading = False
            self._changed.notify_all()
        if not data:
            raise self._lost()
        *lines, self._line = (self._line + data).split(b"\n")
        for line in lines:
            self._note(json.loads(line))
        return True

    def _note(self, message: dict[str, Any]) -> None:
        if "id" in message:
            self._answers[message["id"]] = message
        elif "trap" in message:
            self._events[message["trap"]].add(message["event"])
        else:
            self.port = message["port"]

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("this FaultProxy is closed")

    def _lost(self) -> RuntimeError:
        if self._closed:
            return RuntimeError("this FaultProxy is closed")
        return RuntimeError(
            f"the proxy's process has ended by itself (status {self._process.wait(_PATIENCE)})"
        )
