"""The plugin in whole runs: what it loads, with pytest-xdist, and measured by coverage."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from coverage import CoverageData

from sessionfactory import pytest_plugin
from tests.support.inner_pytest import PLUGIN, XDIST, inner

if TYPE_CHECKING:
    import pytest

    from tests.support.inner_pytest import InnerPytest

__all__ = ["inner"]

SHOWS_MODULES: Final = """
import sys
import pytest

code = pytest.main(sys.argv[1:])
ours = sorted(name for name in sys.modules if name.partition(".")[0] == "sessionfactory")
heavy = {"asyncio", "attr", "attrs", "sqlalchemy"} & set(sys.modules)
print("loaded", int(code), ours, sorted(heavy))
"""
WITHOUT_GREENLET: Final = """
import sys
import pytest

sys.modules["greenlet"] = None
pytest.main(sys.argv[1:])
"""


def run_python(inner: InnerPytest, *args: str) -> str:
    """Return what another Python prints."""
    done = subprocess.run(
        [sys.executable, *args], cwd=inner.folder, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert not done.stderr, done.stderr
    return done.stdout


def test_a_run_without_the_database_loads_nothing_heavy(inner: InnerPytest) -> None:
    """A test that asks for nothing loads the plugin, and nothing else of the package."""
    (inner.folder / "conftest.py").unlink()
    (inner.folder / "test_nothing.py").write_text("def test_nothing(): pass")

    output = run_python(inner, "-c", SHOWS_MODULES, *PLUGIN)

    ours = ["sessionfactory", "sessionfactory.pytest_plugin"]
    assert output.splitlines()[-1] == f"loaded 0 {ours} []"


def test_the_sync_half_needs_no_greenlet(inner: InnerPytest) -> None:
    """Where greenlet is not installed, which it is not with SQLAlchemy 2.1, sync tests run."""
    inner.tests("def test_adds(session_factory): add(session_factory)")

    assert "1 passed" in run_python(inner, "-c", WITHOUT_GREENLET, *PLUGIN)


def test_each_worker_of_xdist_may_have_its_own_file(inner: InnerPytest) -> None:
    """With ``{worker}`` in the URL, workers make their tables and lock their rows apart."""
    inner.ini("sessionfactory_url = sqlite:///{worker}.db")
    inner.tests("""
@pytest.mark.parametrize("turn", range(4))
def test_adds(session_factory, turn, worker_id):
    add(session_factory)
    assert count(session_factory) == 1
    """)

    inner.run_apart(*XDIST, "-n", "2").assert_outcomes(passed=4)

    assert [inner.rows(f"gw{worker}.db") for worker in range(2)] == [0, 0]


def test_without_xdist_the_worker_is_the_master(inner: InnerPytest) -> None:
    """``{worker}`` is then what xdist's own fixture ``worker_id`` says."""
    inner.tests("def test_adds(session_factory): add(session_factory)")

    inner.passes("--sessionfactory-url", "sqlite:///{worker}.db", passed=1)

    assert inner.rows("master.db") == 0


def test_coverage_that_starts_first_measures_the_plugin(
    inner: InnerPytest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under ``coverage run -m pytest`` the plugin's own lines count, its imports included."""
    for name in [name for name in os.environ if name.startswith("COVERAGE_")]:
        monkeypatch.delenv(name)  # this run's own measuring stays out of it
    inner.tests("def test_adds(session_factory): add(session_factory)")

    output = run_python(
        inner, "-m", "coverage", "run", "--data-file=measured",
        "--source=sessionfactory.pytest_plugin", "-m", "pytest", *PLUGIN,
    )  # fmt: skip

    assert "1 passed" in output
    data = CoverageData(str(inner.folder / "measured"))
    data.read()
    lines = Path(pytest_plugin.__file__).read_text().splitlines()
    expected = {lines.index("import sys") + 1, lines.index("        yield registry") + 1}
    assert expected <= set(data.lines(pytest_plugin.__file__) or ())


def test_options_of_the_suite_itself_are_left_alone(inner: InnerPytest) -> None:
    """A suite that has a ``--database-url`` of its own runs as before."""
    (inner.folder / "conftest.py").write_text("""
def pytest_addoption(parser):
    for name in ("--database-url", "--forbid-database"):
        parser.addoption(name, default="its own")
    parser.addini("database_url", "its own")
""")
    inner.tests(
        "def test_own(request): assert request.config.getoption('database_url') == 'its own'"
    )

    inner.passes(passed=1)
