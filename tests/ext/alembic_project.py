"""A small project with migrations, whose ``alembic`` command is run as its users run it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs
from alembic.config import Config

if TYPE_CHECKING:
    from collections.abc import Mapping

LIMIT: Final = 50
"""Seconds that a command may take."""

SYNC_ENV: Final = """\
from sessionfactory import SessionFactoryRegistry
from sessionfactory.ext.alembic import run_migrations

with SessionFactoryRegistry.from_env() as registry:
    run_migrations(registry, None{options})
"""
ASYNC_ENV: Final = """\
import asyncio
from sessionfactory import AsyncSessionFactoryRegistry
from sessionfactory.ext.alembic import run_migrations_async

async def main():
    async with AsyncSessionFactoryRegistry.from_env() as registry:
        await run_migrations_async(registry, None{options})

asyncio.run(main())
"""
REVISION: Final = """\
import pathlib, time
from alembic import op

revision = {revision!r}
down_revision = {before!r}
branch_labels = depends_on = None


def upgrade({parameters}):
{body}


def downgrade({parameters}):
    pass
"""
GATE: Final = """\
op.execute("INSERT INTO runs VALUES (1)")
pathlib.Path("started").touch()
deadline = time.monotonic() + 40
while not pathlib.Path("go").exists() and time.monotonic() < deadline:
    time.sleep(0.01)
"""
"""The body of a migration that waits for the file ``go``."""


@attrs.frozen
class Project:
    """A folder with ``alembic.ini``, ``env.py`` and revisions."""

    folder: Path

    @classmethod
    def make(cls, folder: Path, env: str = SYNC_ENV, options: str = "") -> Project:
        """Make a project that has no revisions yet."""
        (folder / "migrations" / "versions").mkdir(parents=True)
        (folder / "migrations" / "env.py").write_text(env.format(options=options))
        (folder / "alembic.ini").write_text(
            "[alembic]\nscript_location = %(here)s/migrations\npath_separator = os\n"
        )
        return cls(folder)

    def add(
        self, revision: str, body: str, *, before: str | None = None, parameters: str = ""
    ) -> None:
        """Add a revision."""
        lines = "\n".join(f"    {line}" for line in body.splitlines())
        text = REVISION.format(revision=revision, before=before, body=lines, parameters=parameters)
        (self.folder / "migrations" / "versions" / f"{revision}.py").write_text(text)

    @property
    def config(self) -> Config:
        """Return Alembic's configuration, for commands in this process."""
        return Config(str(self.folder / "alembic.ini"))

    def start(self, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        """Start the command in a process of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "alembic", *arguments],
            cwd=self.folder, env=_environment(variables), text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def run(self, *arguments: str, **variables: str) -> str:
        """Run the command and return its output; it must succeed."""
        return finished(self.start(*arguments, **variables))


def finished(process: subprocess.Popen[str]) -> str:
    """Return what a command wrote, once it has ended well."""
    try:
        out, err = process.communicate(timeout=LIMIT)
    finally:
        process.kill()
    assert process.returncode == 0, err
    return out + err


def _environment(variables: Mapping[str, str]) -> dict[str, str]:
    root = Path(__file__).parents[2]
    return {**os.environ, "PYTHONPATH": str(root), "PYTHONWARNINGS": "default", **variables}
