"""What throwaway servers share below the database: users, directories, ports and their keeper."""

from __future__ import annotations

import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

NOBODY = 65534
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - the directories made in these are private
TEMPORARY = Path("/tmp")  # noqa: S108
ROOM_NEEDED = 1 << 30
PYTHON = ["-I", "-S"]  # quick, and no start-up file of the user's that could write to the pipe
LAST_PORT = 65535
LONGEST_BASE = 50  # a socket's path has 104 bytes on macOS, 108 on Linux


class ServerError(RuntimeError):
    """A throwaway server did not do what was asked of it."""


class ServerUnavailableError(ServerError):
    """No binaries of the database were found; the message says where and what to do about it."""


class ServerStartError(ServerError):
    """A server, or a program that prepares one, failed to start; ``log`` is what it said."""

    def __init__(self, what: str, log: str = "") -> None:
        super().__init__(f"{what}\n{log}" if log else what)
        self.log = log


def unprivileged_uid() -> int | None:
    """Return the user id that servers run as; None when that is the one of this process.

    PostgreSQL refuses to run as root, and no throwaway server needs to.
    """
    return NOBODY if os.geteuid() == 0 else None


def check_port(port: int | None) -> None:
    """Refuse what is no port, such as text from an environment variable.

    Raises:
        ValueError: it is neither None nor a number from 1 to 65535.
    """
    if port is not None and (type(port) is not int or not 0 < port <= LAST_PORT):
        raise ValueError(
            f"port: expected a number from 1 to {LAST_PORT}, or None for a free one, not {port!r}"
        )


def reachable(path: Path) -> bool:
    """Tell whether every user may come to a file or directory, read it and execute or enter it."""
    path = path.resolve()
    open_to_all = stat.S_IROTH | stat.S_IXOTH
    return path.stat().st_mode & open_to_all == open_to_all and all(
        parent.stat().st_mode & stat.S_IXOTH for parent in path.parents
    )


def base_directories(*, in_memory: bool, programs: bool) -> list[Path]:
    """Return the directories in which a server's own directory can be made, the best one first.

    Args:
        in_memory: whether shared memory may be taken, if at least 1 GB is free there.
        programs: whether programs will be copied there; containers mount shared memory ``noexec``.

    Raises:
        ServerStartError: if there is none.
    """
    candidates = [Path(tempfile.gettempdir()), TEMPORARY]
    if in_memory and SHARED_MEMORY.is_dir() and shutil.disk_usage(SHARED_MEMORY).free > ROOM_NEEDED:
        candidates.insert(0, SHARED_MEMORY)
    found = [path for path in dict.fromkeys(candidates) if _fits(path, programs=programs)]
    if not found:
        raise ServerStartError(
            f"no directory for a server: {', '.join(map(str, candidates))} must be writable, open "
            f"to the user that runs the server, and {LONGEST_BASE} characters long at most"
        )
    return found


def _fits(path: Path, *, programs: bool) -> bool:
    """Tell whether a server's directory can be made in a directory."""
    if not path.is_dir() or not os.access(path, os.W_OK | os.X_OK):
        return False
    if len(os.fsencode(path)) > LONGEST_BASE:
        return False
    if programs and os.statvfs(path).f_flag & getattr(os, "ST_NOEXEC", 0):
        return False
    return unprivileged_uid() is None or reachable(path)


class _Reply(TypedDict, total=False):
    id: int
    result: object
    error: str


class Keeper:
    """The owner's end of a keeper process, see ``_keeper.py``.

    A call may come from any thread; calls that come together are answered one after the other.

    Args:
        kind: a word for the directory's name.
        bases: where the directory may be made, the best place first; all are swept of leftovers.
        uid: the user that programs run as; None for this process's own.

    Raises:
        ServerStartError: if the directory cannot be made.
    """

    def __init__(self, kind: str, bases: Sequence[Path], uid: int | None) -> None:
        self._lock = threading.Lock()
        self._last = 0
        self._uid = uid
        self.owner = os.getpid()
        given = {"kind": kind, "bases": [str(b) for b in bases], "uid": uid, "owner": self.owner}
        script = str(Path(__file__).with_name("_keeper.py"))
        channel, theirs = socket.socketpair()
        with channel, theirs:  # the file keeps ours open
            self._channel = channel.makefile("rwb")
            self._process = subprocess.Popen(  # noqa: S603 - our own script
                [sys.executable, *PYTHON, script, json.dumps(given)],
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                start_new_session=True,  # so that Ctrl-C in a terminal is the owner's business
            )
        try:
            self.directory = Path(str(self._ask("enter")))
        except BaseException:
            self.release()
            raise

    @property
    def pid(self) -> int:
        """The keeper's own process id."""
        return self._process.pid

    def give(self, path: Path) -> None:
        """Give a file or directory that this process made to the user that programs run as."""
        if self._uid is not None:  # pragma: no branch - the tests run as root or not
            os.chown(path, self._uid, self._uid)

    def reserve(self, port: int = 0) -> int:
        """Take a loopback port, any for 0, for as long as the keeper lives."""
        try:
            return self._number("reserve", port=port)
        except ServerStartError as error:
            raise ServerStartError(f"port {port} of 127.0.0.1 cannot be had: {error}") from None

    def spawn(
        self,
        command: Sequence[object],
        *,
        environment: Mapping[str, str],
        log: Path,
        source: Path = Path(os.devnull),
        farewell: int,
    ) -> int:
        """Start a program in the directory, and return its process id.

        Args:
            command: the program and its arguments.
            environment: all its variables.
            log: the file to which its output is appended.
            source: the file that it reads as standard input.
            farewell: the signal that it gets when its keeper ends.
        """
        return self._number(
            "spawn",
            command=[str(word) for word in command],
            environment=dict(environment),
            log=str(log),
            source=str(source),
            farewell=int(farewell),
        )

    def signal(self, number: int) -> None:
        """Send a signal to the program; nothing is sent once it has ended."""
        self._ask("signal", number=int(number))

    def kill(self) -> None:
        """End the program and all its descendants in one stroke (SIGKILL)."""
        self._ask("kill")

    def wait(self, timeout: float) -> int | None:
        """Wait until the program and all its descendants have ended.

        Returns:
            The exit code, negative for a signal; None if it is still running after ``timeout``
            seconds, or if nothing was ever started.
        """
        code = self._ask("wait", timeout=timeout)
        return code if isinstance(code, int) else None

    def release(self, timeout: float = 30.0) -> None:
        """End the program, remove the directory, give the ports back; idempotent.

        A forked child of the owner leaves its parent's keeper alone.
        """
        if os.getpid() != self.owner:
            return  # pragma: no cover - nobody measures a forked child
        with suppress(ConnectionError):
            self._channel.close()
        self._process.wait(timeout)

    def _number(self, do: str, **arguments: object) -> int:
        return int(str(self._ask(do, **arguments)))

    def _ask(self, do: str, **arguments: object) -> object:
        """Send a request, and return the result of its reply."""
        with self._lock, suppress(ConnectionError, ValueError):  # it ended; it was released
            self._last += 1
            request = {"id": self._last, "do": do, "with": arguments}
            self._channel.write(json.dumps(request).encode() + b"\n")
            self._channel.flush()
            for line in self._channel:
                reply: _Reply = json.loads(line)
                if "error" in reply and reply.get("id") in {0, self._last}:
                    raise ServerStartError(reply["error"])
                if reply.get("id") == self._last:  # an older one's asker was interrupted
                    return reply.get("result")
        raise ServerError("the keeper of this server has ended, and the server with it")
