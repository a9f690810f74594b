"""The keeper: a small process beside each throwaway server that ends it when its owner ends.

It runs as a script of its own, with one thread and nothing but the standard library, and holds all
that a server needs: a private directory, ports, the server's processes. However its owner ends, by
``close()``, at interpreter exit or by SIGKILL, the keeper ends the server and removes the
directory. Why a process, and not a few lines beside the owner's ``subprocess.Popen``:

- ``PR_SET_PDEATHSIG`` fires when the *thread* that forked ends. The keeper has only one, so the
  signal can end the server with the keeper; the owner is watched by other means.
- A pidfd shows the owner's end. The end of the channel does not if a process that the owner forked
  holds it open. Where there is no pidfd, the keeper looks at its parent's id.
- As a "child subreaper" it inherits what a killed server leaves, and can end that too.

A directory is locked (`flock`) as long as its keeper lives. One that is not was left by a keeper
that was killed itself; the next keeper removes it. Unlike a process id in a name, a lock is never
taken over by a stranger, and it is seen across containers.

Requests and replies are JSON, one object a line, on standard input and output.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import re
import select
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

LINUX = sys.platform == "linux"
NAME = "sf-throwaway-"  # short: a socket in the directory has some hundred bytes for its path
OURS = re.compile(re.escape(NAME) + r"[a-z]+-[0-9a-f]{12}")
GRACE = 5.0  # seconds for a server to heed its signal before it is killed
MOST = 65536  # bytes of a file that is read
LOOK = 0.2  # seconds between two looks at the parent's id, where there is no pidfd
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


class OwnerGoneError(Exception):
    """The owner closed the pipe or ended."""


class Keeper:
    """Holds one server's directory, ports and processes, and does what the owner asks."""

    def __init__(self, kind: str, bases: list[str], uid: int | None, owner: int) -> None:
        self.uid = uid
        self.owner: int | None = owner
        self.libc = ctypes.CDLL(None)
        if LINUX:  # pragma: no branch
            self.libc.prctl(PR_SET_CHILD_SUBREAPER, 1)
        self.wakeup = wake_on_child()
        self.watched = [self.wakeup, *owner_descriptor(owner)]
        self.look_every = LOOK if len(self.watched) == 1 else 3600.0
        self.ports: list[socket.socket] = []
        self.server: subprocess.Popen[bytes] | None = None
        self.exit: int | None = None
        self.farewell: int = signal.SIGKILL
        for base in bases:
            sweep(Path(base), uid)
        self.directory, self.lock = private_directory(Path(bases[0]), kind)

    def serve(self) -> NoReturn:
        """Answer requests until the owner is gone."""
        pending = b""
        while True:
            if 0 in self.pump(self.look_every, [0]):
                piece = os.read(0, 65536)
                if not piece:
                    raise OwnerGoneError
                pending += piece
            while b"\n" in pending:
                line, pending = pending.split(b"\n", 1)
                self.answer(json.loads(line))

    def answer(self, request: dict[str, Any]) -> None:
        """Do one request, and send its result or its error."""
        reply: dict[str, object] = {"id": request["id"]}
        try:
            reply["result"] = getattr(self, "do_" + request["do"])(**request["with"])
        except (OSError, subprocess.SubprocessError, OverflowError) as error:
            reply["error"] = str(error)
        os.write(1, json.dumps(reply).encode() + b"\n")

    def do_enter(self) -> str:
        """Give the directory to the server's user, and tell where it is."""
        if self.uid is not None:  # pragma: no branch - the tests run as root or not
            os.chown(self.directory, self.uid, self.uid)
        return str(self.directory)

    def do_reserve(self, port: int) -> int:
        """Take a loopback port, any for 0, and keep it while the server is down.

        On Linux a bound socket that does not listen lets the server listen on its port, and keeps
        everybody else (port 0, outgoing connections) away. Elsewhere the port is only found.
        """
        with socket.socket() as held:
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            held.bind(("127.0.0.1", port))
            if LINUX:  # pragma: no branch
                self.ports.append(held.dup())
            found: int = held.getsockname()[1]
        return found

    def do_spawn(
        self, command: list[str], environment: dict[str, str], log: str, source: str, farewell: int
    ) -> int:
        """Start a program in the directory, as the unprivileged user if there is one."""
        if self.server is not None and self.exit is None:
            raise OSError("a program is still running in this directory")
        keeper = os.getpid()

        def die_with_the_keeper() -> None:  # pragma: no cover - runs in the forked child
            # This comes after setuid, which would clear the setting.
            self.libc.prctl(PR_SET_PDEATHSIG, farewell)
            if os.getppid() != keeper:
                os._exit(1)

        with Path(log).open("ab") as output, Path(source).open("rb") as given:
            self.server = subprocess.Popen(  # noqa: S603 - the owner says what
                command,
                stdin=given,
                stdout=output,
                stderr=output,
                cwd=self.directory,
                env=environment,
                start_new_session=True,
                preexec_fn=die_with_the_keeper if LINUX else None,  # noqa: PLW1509 - one thread
                user=self.uid,
                group=self.uid,
                extra_groups=None if self.uid is None else [],
            )
        self.exit, self.farewell = None, farewell
        return self.server.pid

    def do_signal(self, number: int) -> None:
        """Send a signal to the server; nothing is sent once it has ended."""
        if self.server is not None and self.server.returncode is None:
            os.kill(self.server.pid, number)

    def do_kill(self) -> None:
        """End the server and all below it in one stroke, before any can tell its client."""
        if self.server is not None and self.server.returncode is None:
            self.do_signal(signal.SIGSTOP)  # no more children
            kill([*descendants(self.server.pid), self.server.pid])

    def do_wait(self, timeout: float) -> int | None:
        """Wait until the server and all its descendants have ended; None when they have not."""
        deadline = time.monotonic() + timeout
        while self.server is not None and self.exit is None:
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            self.pump(min(left, self.look_every), [])
        return self.exit

    def pump(self, timeout: float, more: list[int]) -> list[int]:
        """Sleep until something happens; notice ended children and an ended owner."""
        ready = select.select([*self.watched, *more], [], [], timeout)[0]
        if self.wakeup in ready:
            os.read(self.wakeup, 4096)
        self.reap()
        if self.owner not in {None, os.getppid()} or not {*self.watched[1:]}.isdisjoint(ready):
            raise OwnerGoneError
        return ready

    def reap(self) -> None:
        """Collect ended children; when the server itself has ended, end what it left behind."""
        while self.server is not None and self.exit is None:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:  # the last one is gone
                self.exit = self.server.returncode
                return
            if pid == self.server.pid:  # waited for here, so that Popen must not wait again
                self.server.returncode = os.waitstatus_to_exitcode(status)
            elif not pid:
                if self.server.returncode is not None:
                    kill(descendants(os.getpid()))
                return

    def release(self) -> None:
        """End the server, politely at first, and remove the directory."""
        self.owner, self.watched = None, [self.wakeup]  # its end may still come, and is no news
        for number in (self.farewell, signal.SIGKILL):
            self.do_signal(number)
            self.do_wait(GRACE)
        remove(self.directory)


def wake_on_child() -> int:
    """Return a descriptor that becomes readable when a child ends."""
    read_end, write_end = os.pipe()
    os.set_blocking(read_end, False)
    os.set_blocking(write_end, False)
    signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    return read_end


def owner_descriptor(owner: int) -> list[int]:
    """Return a descriptor that becomes readable when the owner ends, where the system has one."""
    if sys.platform == "linux":  # pragma: no branch
        with contextlib.suppress(OSError):  # too old a kernel, or forbidden in a sandbox
            return [os.pidfd_open(owner)]
    return []


def descendants(ancestor: int) -> list[int]:
    """Return the processes below one, where the system lists processes as files."""
    parents: dict[int, int] = {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # ended meanwhile
            parents[int(file.parent.name)] = int(file.read_text().rpartition(")")[2].split()[1])
    found: list[int] = []
    wanted = {ancestor}
    while wanted:
        wanted = {pid for pid, parent in parents.items() if parent in wanted}
        found += wanted
    return found


def kill(pids: list[int]) -> None:
    """Kill processes; those that have ended meanwhile are no fault."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def private_directory(base: Path, kind: str) -> tuple[Path, int]:
    """Make a directory that only its owner may enter, and lock it before a sweeper does."""
    while True:
        path = base / f"{NAME}{kind}-{os.urandom(6).hex()}"
        path.mkdir(mode=0o700)
        lock = lock_directory(path)
        if lock is not None:
            return path, lock


def lock_directory(path: Path) -> int | None:
    """Lock a directory, or return None if it is somebody else's, or gone."""
    try:
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.stat()  # it may have been removed between opening and locking
    except OSError:
        os.close(lock)
        return None
    return lock


def sweep(base: Path, uid: int | None) -> None:
    """Remove the directories of dead keepers: those of our name and users that are not locked.

    Another user may make a directory of that name, and put anything into it. As root, the servers'
    own user counts as one of ours, so that nothing inside is trusted: see ``text_of``.
    """
    for path in base.iterdir():
        if OURS.fullmatch(path.name):
            lock = lock_directory(path)
            if lock is not None:
                if os.fstat(lock).st_uid in {os.geteuid(), uid}:
                    remove(path)
                os.close(lock)


def text_of(path: Path) -> str:
    """Return the text of a regular file in a directory that may be another user's.

    Opening a FIFO would wait for ever, and a link may lead anywhere.

    Raises:
        OSError: it is no regular file, or a large one.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        descriptor = os.open(path.name, flags, dir_fd=folder)
    finally:
        os.close(folder)
    with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(f"not a regular file: {path}")
        text = file.read(MOST + 1)
    if len(text) > MOST:
        raise OSError(f"too large: {path}")
    return text.decode(errors="replace")


def remove(directory: Path) -> None:
    """Remove a directory, again if a dying process writes into it meanwhile."""
    remove_shared_memory(directory)
    deadline = time.monotonic() + GRACE
    shutil.rmtree(directory, ignore_errors=True)
    while directory.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
        shutil.rmtree(directory, ignore_errors=True)


def remove_shared_memory(directory: Path) -> None:
    """Remove the System V segment that a killed PostgreSQL left, by its ``postmaster.pid``.

    After a reboot its id may be another's, and the file may be written by another user: the key has
    to match, no process may be attached, and the segment has to belong to the directory's owner.
    """
    with contextlib.suppress(OSError, IndexError, ValueError):
        owner = directory.stat().st_uid
        state = text_of(directory / "data" / "postmaster.pid")
        key, shmid = map(int, state.splitlines()[6].split())
        for line in Path("/proc/sysvipc/shm").read_text().splitlines()[1:]:
            row = [int(number) for number in line.split()]
            # PostgreSQL writes the key unsigned, the kernel signed
            is_named = row[1] == shmid and (row[0] ^ key) & 0xFFFFFFFF == 0
            if is_named and row[6] == 0 and row[7] == owner:
                ctypes.CDLL(None).shmctl(shmid, 0, None)  # 0 is IPC_RMID


def main() -> None:
    """Keep one server, as the only argument says, until the owner is gone."""

    def leave(*_: object) -> None:
        raise OwnerGoneError

    signal.signal(signal.SIGTERM, leave)
    try:
        keeper = Keeper(**json.loads(sys.argv[1]))
    except OSError as error:
        os.write(1, json.dumps({"id": 0, "error": str(error)}).encode() + b"\n")
        return
    with contextlib.suppress(OwnerGoneError, ConnectionError):
        try:
            keeper.serve()
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            keeper.release()


if __name__ == "__main__":
    main()
