"""The README's examples pass `mypy --strict`: types are the first promise of the package."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mypy import api

if TYPE_CHECKING:
    import pytest

README = Path(__file__).parents[1] / "README.md"


def test_the_examples_are_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One program of all blocks, in their order, has no fault under the strictest rules."""
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    program = "\n\n".join(block for block in blocks if not block.startswith(">>>"))
    (tmp_path / "readme.py").write_text(program)
    monkeypatch.chdir(tmp_path)  # without this repository's configuration
    arguments = ["--strict", "--python-executable", sys.executable, "readme.py"]

    output, errors, status = api.run(arguments)

    assert program
    assert (status, errors) == (0, ""), output
