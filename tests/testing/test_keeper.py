from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from sessionfactory.testing.servers import _keeper


def test_only_a_directory_that_nobody_holds_is_locked(tmp_path: Path) -> None:
    """Neither one that is gone, nor what only looks like one, nor one in use."""
    (tmp_path / "link").symlink_to(tmp_path)
    assert _keeper.lock_directory(tmp_path / "gone") is None
    assert _keeper.lock_directory(tmp_path / "link") is None
    lock = _keeper.lock_directory(tmp_path)
    assert lock is not None
    assert _keeper.lock_directory(tmp_path) is None
    os.close(lock)


def test_a_directory_that_was_swept_before_it_was_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another keeper may look between the two steps, and remove it."""
    lock_directory, swept = _keeper.lock_directory, list[Path]()

    def too_late(path: Path) -> int | None:
        if not swept:
            swept.append(path)
            path.rmdir()
        return lock_directory(path)

    monkeypatch.setattr(_keeper, "lock_directory", too_late)
    path, lock = _keeper.private_directory(tmp_path, "test")
    assert list(tmp_path.iterdir()) == [path]
    assert path not in swept
    os.close(lock)


def test_a_directory_is_removed_even_if_something_still_writes_into_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a process may that is about to end."""
    rmtree, writes = shutil.rmtree, [1, 2]

    def interrupted(path: Path, *, ignore_errors: bool) -> None:
        there = path.exists()
        rmtree(path, ignore_errors=ignore_errors)
        if there and writes:
            path.mkdir()
            (path / f"{writes.pop()}").touch()

    monkeypatch.setattr("shutil.rmtree", interrupted)
    _keeper.remove(tmp_path / "server")
    assert writes == [1, 2]  # there was nothing
    (tmp_path / "server").mkdir()
    _keeper.remove(tmp_path / "server")
    assert list(tmp_path.iterdir()) == []


def test_a_system_without_pidfd_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sandboxes forbid it, and old kernels and macOS have none."""

    def forbidden(pid: int) -> int:
        raise PermissionError

    monkeypatch.setattr("os.pidfd_open", forbidden, raising=False)
    assert _keeper.owner_descriptor(os.getpid()) == []


def test_a_fifo_in_a_swept_directory_stops_nothing(tmp_path: Path) -> None:
    """What another user puts into a directory of that name is removed, and never waited for."""
    left = tmp_path / f"{_keeper.NAME}x-{'0' * 12}"
    (left / "data").mkdir(parents=True)
    os.mkfifo(left / "data" / "postmaster.pid")

    _keeper.sweep(tmp_path, None)

    assert list(tmp_path.iterdir()) == []


def test_only_regular_files_of_moderate_size_are_read(tmp_path: Path) -> None:
    """A link, a device, a FIFO or a large file is refused."""
    (tmp_path / "file").write_text("text")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    (tmp_path / "large").write_bytes(b"x" * (_keeper.MOST + 1))
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "device").symlink_to("/dev/zero")

    assert _keeper.text_of(tmp_path / "file") == "text"
    for name in ("link", "large", "fifo", "device"):
        with pytest.raises(OSError):  # noqa: PT011 - each system has another text
            _keeper.text_of(tmp_path / name)


def test_directories_of_other_users_are_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A directory of that name that belongs to another user is not removed."""
    left = tmp_path / f"{_keeper.NAME}x-{'0' * 12}"
    left.mkdir()
    owner = os.geteuid()
    monkeypatch.setattr("os.geteuid", lambda: owner + 1)

    _keeper.sweep(tmp_path, owner + 2)
    assert left.exists()
    _keeper.sweep(tmp_path, owner)
    assert not left.exists()
