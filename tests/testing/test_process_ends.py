from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sessionfactory.testing.servers import _process
from sessionfactory.testing.servers._process import Keeper, unprivileged_uid
from tests.support.observe import SLEEPER, linux_only, spawn, telling, until

if TYPE_CHECKING:
    from tests.support.observe import Watch

OWNER = """
import json, os, signal, sys
from pathlib import Path
from sessionfactory.testing.servers import _process
from sessionfactory.testing.servers._process import Keeper, unprivileged_uid
_process.PYTHON = sys.argv[3:]
keeper = Keeper("test", [Path(sys.argv[1])], unprivileged_uid())
pid = keeper.spawn(["/bin/sleep", "1000"], environment={}, log=keeper.directory / "log",
                   farewell=15)
forked = os.fork() if sys.argv[2] == "forking" else 0
if forked or sys.argv[2] != "forking":
    print(json.dumps({"directory": str(keeper.directory), "pids": [pid, keeper.pid]}), flush=True)
if sys.argv[2] == "exiting":
    raise SystemExit
signal.pause()
"""


def owner(base: Path, how: str) -> list[str]:
    """Return a command that owns a keeper, and tells about it."""
    return [
        sys.executable,
        "-W",
        "ignore::ResourceWarning",
        "-c",
        OWNER,
        str(base),
        how,
        *_process.PYTHON,
    ]


@linux_only
@pytest.mark.parametrize("how", ["plain", "forking"])
def test_nothing_is_left_when_the_owner_is_killed(base: Path, watch: Watch, how: str) -> None:
    """Nor when a process that it forked lives on, with the owner's end of the channel."""
    with telling(*owner(base, how)) as (process, hear):
        told = json.loads(hear())
        watch.on(told["pids"])
        assert Path(told["directory"]).is_dir()
        process.kill()
        watch.until_all_ended()
        assert list(base.iterdir()) == []
        if how == "forking":  # the one that lived on; it shares our end of its output
            os.killpg(process.pid, signal.SIGKILL)


@linux_only
def test_nothing_is_left_where_there_is_no_pidfd(base: Path, watch: Watch) -> None:
    """The keeper then looks at its parent's id."""
    source = Path(_process.__file__).with_name("_keeper.py").read_text()
    older = base / "_keeper.py"
    older.write_text(source.replace("os.pidfd_open(owner)", "os.pidfd_open(-1)"))
    command = owner(base, "forking")
    place = (
        f"import sessionfactory.testing.servers._process as p; p.__file__ = {str(base / 'p')!r}\n"
    )
    command[4] = place + command[4]
    with telling(*command) as (process, hear):
        watch.on(json.loads(hear())["pids"])
        process.kill()
        watch.until_all_ended()
        assert list(base.iterdir()) == [older]
        os.killpg(process.pid, signal.SIGKILL)


@linux_only
def test_nothing_is_left_when_the_owner_ends_without_release(base: Path) -> None:
    """A server that was not closed ends with its process."""
    with telling(*owner(base, "exiting")) as (process, hear):
        told = json.loads(hear())
        assert process.wait(20) == 0
        until(lambda: not Path(told["directory"]).exists())


@linux_only
def test_the_keeper_ends_in_good_order_when_it_is_told_to(
    base: Path, keeper: Keeper, watch: Watch
) -> None:
    """As when a container is stopped."""
    watch.on([spawn(keeper, SLEEPER), keeper.pid])
    os.kill(keeper.pid, signal.SIGTERM)
    watch.until_all_ended()
    assert list(base.iterdir()) == []


@linux_only
def test_what_a_killed_keeper_leaves_is_removed_by_the_next(
    base: Path, keeper: Keeper, watch: Watch
) -> None:
    """And nothing else: neither a live one's directory nor a stranger's."""
    alive = Keeper("test", [base], unprivileged_uid())
    stranger = base / "sf-throwaway-notes"
    stranger.mkdir()
    watch.on([spawn(keeper, SLEEPER), keeper.pid])
    os.kill(keeper.pid, signal.SIGKILL)
    watch.until_all_ended()  # the program with it
    assert keeper.directory.is_dir()
    following = Keeper("test", [base], unprivileged_uid())
    assert set(base.iterdir()) == {alive.directory, following.directory, stranger}
    alive.release()
    following.release()
