"""The command `sessionfactory`, run in this process."""

from __future__ import annotations

from typing import Final

from attrs import frozen
from typer.testing import CliRunner

from sessionfactory.cli import app

CANARY: Final = "canary-7f3a"


@frozen
class Run:
    """What came of a run of the command."""

    status: int
    out: str
    err: str


def run(*arguments: str, **environ: str) -> Run:
    """Run the command in this process."""
    result = CliRunner().invoke(app, arguments, env=environ, prog_name="sessionfactory")
    assert isinstance(result.exception, SystemExit | None)
    return Run(result.exit_code, result.stdout, result.stderr)
