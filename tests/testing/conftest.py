"""Real servers for the tests, and means to see what became of one."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sessionfactory.testing.servers import _process
from sessionfactory.testing.servers._process import Keeper, unprivileged_uid
from tests.support.observe import Watch

if TYPE_CHECKING:
    from collections.abc import Generator


@pytest.fixture(scope="session", autouse=True)
def measured_keepers() -> Generator[None]:
    """Let coverage measure the keepers too; its start-up file is one that ``-S`` leaves out."""
    with pytest.MonkeyPatch.context() as patch:
        if "coverage" in sys.modules:
            patch.setattr(_process, "PYTHON", ["-I"])
        yield


@pytest.fixture
def watch() -> Generator[Watch]:
    """A watch on processes."""
    watch = Watch()
    yield watch
    watch.close()


@pytest.fixture
def closed_home() -> Generator[Path]:
    """A directory like root's home: only its owner may enter it."""
    home = Path(tempfile.mkdtemp())
    yield home
    shutil.rmtree(home)


@pytest.fixture
def base() -> Generator[Path]:
    """A short directory that every user may enter."""
    made = Path(f"/tmp/w-{os.urandom(4).hex()}")
    made.mkdir()
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture
def keeper(base: Path) -> Generator[Keeper]:
    """A keeper with an empty directory."""
    keeper = Keeper("test", [base], unprivileged_uid())
    yield keeper
    keeper.release()
