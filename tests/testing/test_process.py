from __future__ import annotations

import os
import signal
import socket
import stat
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from sessionfactory.testing.servers import _process
from sessionfactory.testing.servers._process import (
    Keeper,
    ServerError,
    ServerStartError,
    base_directories,
    unprivileged_uid,
)
from tests.support.observe import SLEEPER, linux_only, spawn, until

if TYPE_CHECKING:
    from tests.support.observe import Watch


def child_of_sh(keeper: Keeper, script: str) -> tuple[int, int]:
    """Start a shell that writes its child's process id, and return both ids."""
    pid = spawn(keeper, ["/bin/sh", "-c", script])
    log = keeper.directory / "log"
    until(lambda: log.read_text().endswith("\n"))
    return pid, int(log.read_text())


def test_the_directory_is_private_and_belongs_to_the_server_s_user(keeper: Keeper) -> None:
    """No other user sees the data."""
    state = keeper.directory.stat()
    assert stat.S_IMODE(state.st_mode) == 0o700
    assert state.st_uid == (65534 if os.geteuid() == 0 else os.geteuid())


def test_a_program_runs_in_the_directory_as_the_server_s_user(keeper: Keeper) -> None:
    """Without any of root's groups; its output is in the log."""
    spawn(keeper, ["/bin/sh", "-c", "pwd; id -u; id -G; echo told >&2; exit 3"])
    assert keeper.wait(20) == 3
    uid = unprivileged_uid()
    groups = str(uid) if uid is not None else " ".join(map(str, [os.getegid(), *os.getgroups()]))
    where, who, of, told = (keeper.directory / "log").read_text().splitlines()
    assert where == str(keeper.directory)
    assert who == str(uid if uid is not None else os.geteuid())
    assert set(of.split()) == set(groups.split())
    assert told == "told"


def test_release_ends_the_program_and_removes_the_directory(
    base: Path, keeper: Keeper, watch: Watch
) -> None:
    """And the keeper with them, when the call returns."""
    watch.on([spawn(keeper, SLEEPER), keeper.pid])
    keeper.release()
    watch.until_all_ended(0)
    assert list(base.iterdir()) == []
    keeper.release()  # again is no fault
    with pytest.raises(ServerError, match="the keeper of this server has ended"):
        keeper.wait(0)


def test_a_program_that_ignores_its_farewell_is_killed(
    base: Path, monkeypatch: pytest.MonkeyPatch, watch: Watch
) -> None:
    """And all that it started."""
    source = Path(_process.__file__).with_name("_keeper.py").read_text()
    impatient = base / "_keeper.py"
    impatient.write_text(source.replace("GRACE = 5.0", "GRACE = 0.1"))
    monkeypatch.setattr(_process, "__file__", str(base / "_process.py"))
    keeper = Keeper("test", [base], unprivileged_uid())
    _, child = child_of_sh(keeper, "trap '' TERM; sleep 1000 & echo $!; while :; do wait; done")
    watch.on([child])
    keeper.release()
    watch.until_all_ended(0)
    assert list(base.iterdir()) == [impatient]


@linux_only
def test_wait_ends_only_when_the_killed_program_s_children_have_ended_too(
    keeper: Keeper, watch: Watch
) -> None:
    """Not even those that left its session live on."""
    _, child = child_of_sh(keeper, "setsid sleep 1000 & echo $!; exec sleep 1000")
    watch.on([child])
    assert keeper.wait(0) is None
    keeper.signal(signal.SIGKILL)
    assert keeper.wait(20) == -signal.SIGKILL
    watch.until_all_ended(0)
    keeper.signal(signal.SIGKILL)  # no process is left that could get it
    keeper.kill()


@linux_only
def test_kill_ends_all_generations(keeper: Keeper, watch: Watch) -> None:
    """In one stroke."""
    pid, grandchild = child_of_sh(
        keeper, "setsid sh -c 'sleep 1000 & echo $!; exec sleep 1000' & exec sleep 1000"
    )
    watch.on([pid, grandchild])
    keeper.kill()
    assert keeper.wait(20) == -signal.SIGKILL
    watch.until_all_ended(0)


def test_a_program_that_cannot_be_run_is_an_error(keeper: Keeper) -> None:
    """The keeper is ready for the next."""
    with pytest.raises(ServerStartError, match=r"No such file or directory: '/no/such/program'"):
        spawn(keeper, ["/no/such/program"])
    assert keeper.wait(0) is None


def test_a_keeper_that_ends_is_told(base: Path, keeper: Keeper) -> None:
    """As it would by a fault of ours; it cleans up even then."""
    with pytest.raises(ServerError, match="the keeper of this server has ended"):
        keeper._ask("nonsense")
    keeper.release()
    assert list(base.iterdir()) == []


def test_one_program_at_a_time(keeper: Keeper) -> None:
    """A directory has one server."""
    spawn(keeper, SLEEPER)
    with pytest.raises(ServerStartError, match="a program is still running in this directory"):
        spawn(keeper, SLEEPER)


def test_an_answer_that_nobody_waited_for_is_passed_over(keeper: Keeper) -> None:
    """Ctrl-C may come between a request and its answer."""
    spawn(keeper, SLEEPER)
    keeper._channel.write(b'{"id": -1, "do": "wait", "with": {"timeout": 0}}\n')
    keeper._channel.write(b'{"id": -2, "do": "reserve", "with": {"port": 99999}}\n')
    keeper.kill()
    assert keeper.wait(20) == -signal.SIGKILL


def test_a_directory_that_cannot_be_made_is_an_error(base: Path) -> None:
    """The keeper tells why."""
    with pytest.raises(ServerStartError, match="No such file or directory"):
        Keeper("test", [base / "missing"], None)


def test_a_reserved_port_is_nobody_else_s_until_release(keeper: Keeper) -> None:
    """So that a stopped server can always start again."""
    port = keeper.reserve()
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(("127.0.0.1", port))
    with socket.socket() as server:  # but the keeper's server can listen on it
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", port))
        server.listen()
    keeper.release()
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))


def test_a_taken_port_is_an_error(keeper: Keeper) -> None:
    """It names the port."""
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        port = stranger.getsockname()[1]
        with pytest.raises(ServerStartError, match=f"port {port} of 127.0.0.1 cannot .*in use"):
            keeper.reserve(port)


@linux_only
def test_a_server_outlives_the_thread_that_started_it(keeper: Keeper) -> None:
    """The kernel's signal would come at the end of the thread that forked."""
    started: list[int] = []
    thread = threading.Thread(target=lambda: started.append(spawn(keeper, SLEEPER)))
    thread.start()
    thread.join()
    assert keeper.wait(0.2) is None  # PR_SET_PDEATHSIG would have ended it at once


@linux_only
def test_a_forked_child_leaves_its_parent_s_keeper_alone(keeper: Keeper) -> None:
    """It has a copy of the object, and not the server."""
    spawn(keeper, SLEEPER)
    child = os.fork()
    if not child:
        keeper.release()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert keeper.wait(0) is None


def test_shared_memory_is_taken_only_if_there_is_room(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise data goes where temporary files go."""
    monkeypatch.setattr(_process, "SHARED_MEMORY", base)
    assert base_directories(in_memory=True, programs=False)[0] == base
    assert base not in base_directories(in_memory=False, programs=False)
    monkeypatch.setattr(_process, "ROOM_NEEDED", 1 << 60)
    assert base not in base_directories(in_memory=True, programs=False)


@pytest.mark.skipif(not hasattr(os, "ST_NOEXEC"), reason="this system does not tell")
def test_programs_are_not_copied_where_none_may_run(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Containers mount shared memory so."""

    def statvfs(path: Path) -> object:
        state = real(path)
        names = ("f_flag", "f_frsize", "f_blocks", "f_bfree", "f_bavail")
        copy = SimpleNamespace(**{name: getattr(state, name) for name in names})
        copy.f_flag |= os.ST_NOEXEC if path == base else 0
        return copy

    real = os.statvfs
    monkeypatch.setattr(_process, "SHARED_MEMORY", base)
    monkeypatch.setattr(os, "statvfs", statvfs)
    assert base not in base_directories(in_memory=True, programs=True)
    assert base_directories(in_memory=True, programs=False)[0] == base


def test_no_fitting_directory_is_an_error(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says what would fit."""
    too_long = base / ("x" * 60)
    too_long.mkdir()
    monkeypatch.setattr(_process, "SHARED_MEMORY", base / "missing")
    monkeypatch.setattr(_process, "TEMPORARY", base / "missing")
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(too_long))
    with pytest.raises(ServerStartError, match=r"no directory for a server: .* must be writable"):
        base_directories(in_memory=True, programs=False)
