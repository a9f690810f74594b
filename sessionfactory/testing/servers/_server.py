"""The life of a throwaway server, the same for every database."""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

from sessionfactory.testing.servers._binaries import copy_installation
from sessionfactory.testing.servers._process import (
    Keeper,
    ServerError,
    ServerStartError,
    ServerUnavailableError,
    base_directories,
    check_port,
    reachable,
    unprivileged_uid,
)

if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Mapping
    from types import TracebackType

Setting = str | int | float | bool
"""What a server's setting may be given as."""

TAIL = 30  # lines of the log in an error
POSIX = os.name == "posix"
ATTEMPTS = 5  # at finding a free port
TICK = 0.005  # seconds between two looks at a server that is starting


class ThrowawayServer(ABC):
    """A real database server with a directory, a port and processes of its own, gone at the end.

    A context manager: it starts on entry, and on exit stops and leaves nothing behind. Nor does it
    when the process that made it is killed. It listens on loopback only, and runs as an
    unprivileged user when that process is root's. In between it may be stopped, killed and
    started again; its data and its URL stay.

    Any thread may use it, one at a time.
    """

    kind: ClassVar[str]
    skipped: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        *,
        settings: Mapping[str, Setting] | None,
        port: int | None,
        durable: bool,
        timeout: float,
    ) -> None:
        check_port(port)
        self._settings: dict[str, Setting] = dict(settings or {})
        self._fixed_port = port
        self._durable = durable
        self._timeout = timeout
        self._keeper: Keeper | None = None
        self._port = 0
        self._pid: int | None = None
        self._closed = False
        self._last_log = ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"port {self._port}" if self._port else "not started"
        return f"<{type(self).__name__}: {state}>"

    def start(self) -> None:
        """Start the server and wait until it takes connections; nothing happens if it runs.

        Raises:
            ServerUnavailableError: if no binaries were found.
            ServerStartError: if it did not start, with the end of its log.
        """
        if self._closed:
            raise ServerError(f"{self!r} has no directory any more: make a new one")
        if self._keeper is not None:
            if not self.running:
                self._launch()
            return
        try:
            self._open()
            self._launch_somewhere()
        except BaseException:
            self.close()
            raise

    def kill(self) -> None:
        """End all processes of the server in one stroke (SIGKILL); nothing happens if it is down.

        Clients are told nothing, as in a power cut; their connections break.
        """
        if self.running:
            self._kept.kill()
            self._kept.wait(self._timeout)
            self._pid = None

    def close(self) -> None:
        """End the server and remove all that it left; idempotent."""
        if self._closed or (self._keeper is not None and self._keeper.owner != os.getpid()):
            return
        if self._keeper is not None:
            self._last_log = self.log
            self._keeper.release()
        self._closed = True
        self._pid = None

    @property
    def running(self) -> bool:
        """Whether the server's process exists."""
        if self._pid is None or self._keeper is None:
            return False
        if self._keeper.wait(0) is not None:
            self._pid = None
        return self._pid is not None

    @property
    def pid(self) -> int | None:
        """The id of the server's main process; None while it is down."""
        return self._pid if self.running else None

    @property
    def port(self) -> int:
        """The port on 127.0.0.1; it stays the same as long as the server is not closed."""
        if not self._port:
            way = f"with {type(self).__name__}() as server:"
            raise ServerError(f"{self!r} has no port before its first start: {way}")
        return self._port

    @property
    def directory(self) -> Path:
        """The server's private directory: its data, its log, its socket."""
        return self._kept.directory

    @property
    def log(self) -> str:
        """All that the server has logged so far."""
        if self._keeper is None or self._closed:
            return self._last_log
        return self._read_log(0)

    @abstractmethod
    def _locate(self) -> Path:
        """Find an installation, or raise ``ServerUnavailableError``."""

    @abstractmethod
    def _prepare(self, tree: Path) -> None:
        """Make the data directory with the programs of an installation."""

    @abstractmethod
    def _command(self) -> list[object]:
        """Return the command line of the server, its settings written."""

    @abstractmethod
    def _ready(self, pid: int) -> bool:
        """Tell whether the server with this process id takes connections."""

    @property
    @abstractmethod
    def _farewell(self) -> signal.Signals:
        """The signal that ends the server when nobody will need its data."""

    def _environment(self) -> dict[str, str]:
        """Return the variables that server programs get; nothing that configures a client."""
        passed = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
        kept = {name: os.environ[name] for name in passed if name in os.environ}
        return kept | {"LC_ALL": "C", "TZ": "UTC"}

    @property
    def _kept(self) -> Keeper:
        if self._keeper is None or self._closed:
            raise ServerError(f"{self!r} has no directory")
        return self._keeper

    @property
    def _log_file(self) -> Path:
        return self._kept.directory / "log"

    def _open(self) -> None:
        """Make the directory with its data, in memory if there is room and it may be lost."""
        if not POSIX:
            raise ServerUnavailableError("throwaway servers run on Linux and macOS only")
        tree, uid = self._locate(), unprivileged_uid()
        copy = uid is not None and not reachable(tree)
        bases = base_directories(in_memory=not self._durable, programs=copy)
        self._keeper = Keeper(self.kind, bases, uid)
        if copy:
            tree = copy_installation(tree, self.directory / "programs", skip=self.skipped)
        self._port = self._keeper.reserve(self._fixed_port or 0)
        self._prepare(tree)

    def _launch_somewhere(self) -> None:
        """Start the server for the first time, on another port if a stranger was quicker.

        Needed only where the keeper cannot hold a port for the server.
        """
        attempts = ATTEMPTS
        while True:
            try:
                return self._launch()
            except ServerStartError as error:
                attempts -= 1
                taken = "already in use" in error.log.lower()
                if not taken or self._fixed_port is not None or not attempts:
                    raise
            self._port = self._kept.reserve()

    def _launch(self) -> None:
        """Start the server and wait until it is ready."""
        before = self._log_file.stat().st_size if self._log_file.exists() else 0
        pid = self._spawn(self._command())

        def ready() -> bool:
            code = self._kept.wait(0)
            if code is not None:
                what = f"{self.kind} ended with code {code} while it was starting; its log:"
                raise ServerStartError(what, self._tail(before))
            return self._ready(pid)

        if not self._until(ready):
            self._kept.kill()
            self._kept.wait(self._timeout)
            what = f"{self.kind} was not ready after {self._timeout:g} s; its log:"
            raise ServerStartError(what, self._tail(before))
        self._pid = pid

    def _end(self, number: signal.Signals) -> None:
        """Send a signal that ends the server, and wait for its end."""
        if not self.running:
            return
        self._kept.signal(number)
        if self._kept.wait(self._timeout) is None:
            raise ServerError(
                f"{self.kind} did not end within {self._timeout:g} s of {number.name}; its log:\n"
                + self._tail(0)
            )
        self._pid = None

    def _run(self, command: list[object], *, source: Path = Path(os.devnull)) -> None:
        """Run a program that prepares the server, as the server's user."""
        log = self.directory / "prepare.log"
        self._spawn(command, log=log, source=source)
        code = self._kept.wait(self._timeout)
        if code != 0:
            ended = f"ended with code {code}" if code else f"took over {self._timeout:g} s"
            said = log.read_text(errors="replace")
            raise ServerStartError(f"{command[0]} {ended}; it said:", _last_lines(said))
        log.unlink()

    def _spawn(
        self, command: list[object], *, log: Path | None = None, source: Path = Path(os.devnull)
    ) -> int:
        return self._kept.spawn(
            command,
            environment=self._environment(),
            log=log or self._log_file,
            source=source,
            farewell=self._farewell,
        )

    def _until(self, condition: Callable[[], bool]) -> bool:
        """Look again and again whether a condition holds; False if it never did in time."""
        deadline = time.monotonic() + self._timeout
        while not condition():
            if time.monotonic() > deadline:
                return False
            time.sleep(TICK)
        return True

    def _read_log(self, start: int) -> str:
        if not self._log_file.exists():
            return ""
        with self._log_file.open("rb") as file:
            file.seek(start)
            return file.read().decode(errors="replace")

    def _tail(self, start: int) -> str:
        return _last_lines(self._read_log(start))


def _last_lines(text: str) -> str:
    """Return the end of a log."""
    return "\n".join(deque(text.splitlines(), TAIL))
