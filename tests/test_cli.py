"""The command `sessionfactory`, as a person in a shell and a machine see it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.commands import CANARY, run

SCRIPT: Final = Path(sys.executable).with_name("sessionfactory")


def shell(*command: str | Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a process of its own, in an environment without a terminal."""
    return subprocess.run(
        command, env={**os.environ, **environ}, capture_output=True, text=True, check=False
    )


def rows(output: str) -> dict[str, list[str]]:
    """Return the rows of a printed table by their first cell."""
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in output.splitlines()]
    return {first: rest for first, *rest in filter(None, cells)}


@pytest.mark.parametrize("command", [(SCRIPT,), (sys.executable, "-m", "sessionfactory")])
def test_both_ways_to_run_it_are_the_same(command: tuple[str | Path, ...]) -> None:
    """The script and the module check the environment, and call themselves alike."""
    good = shell(*command, "check", DATABASE_URL="sqlite://", DATABASE_POOL_SIZE="7")
    bad = shell(*command, "check", "--nonsense")

    assert (good.returncode, good.stderr) == (0, "")
    assert rows(good.stdout)["pool.size"] == ["7"]
    assert bad.returncode == 2
    assert "Usage: sessionfactory check" in bad.stderr


def test_check_prints_a_table_for_each_database() -> None:
    """Every setting of every database is shown with its effective value."""
    result = run("check", DATABASE_URL="sqlite://", ANALYTICS_DATABASE_URL="sqlite:///a.db")

    assert result.status == 0
    titles = [line.strip() for line in result.out.splitlines() if line[:1].isalpha()]
    assert titles == ["analytics", "default"]
    table = rows(result.out[result.out.index("default") :])
    assert table["url"] == ["sqlite://"]
    assert table["pool.size"] == ["5"]
    assert table["statement_timeout"] == ["none"]
    assert table["echo"] == ["false"]
    assert table["sqlite.foreign_keys"] == ["true"]


def test_a_table_in_a_pipe_is_never_cut(tmp_path: Path) -> None:
    """What is read by `grep` has whole values, however long they are."""
    url = f"sqlite:///{tmp_path}/{'long' * 60}.db"

    process = shell(SCRIPT, "show", DATABASE_URL=url)

    assert rows(process.stdout)["url"] == [url, "DATABASE_URL"]


def test_check_speaks_json() -> None:
    """A machine gets values of their own types, and nothing else on the standard output."""
    result = run(
        "check",
        "--json",
        DATABASE_URL="sqlite://",
        DATABASE_CONNECT_TIMEOUT="2.5",
        DATABASE_ECHO="yes",
    )

    settings = json.loads(result.out)["default"]["settings"]
    assert result.status == 0
    assert settings["url"] == "sqlite://"
    assert settings["pool.size"] == 5
    assert settings["connect_timeout"] == 2.5
    assert settings["statement_timeout"] is None
    assert settings["echo"] is True
    assert settings["replicas"] == []


def test_show_says_where_each_value_came_from(tmp_path: Path) -> None:
    """A variable, a table of the file, a secret's file and the default are told apart."""
    toml = tmp_path / "databases.toml"
    toml.write_text(
        '[databases.default]\nurl = "postgresql://ada@localhost/app"\n'
        "statement_timeout = 9\n[databases.default.pool]\nsize = 3\n"
    )
    secret = tmp_path / "password"
    secret.write_text(f"{CANARY}\n")

    result = run(
        "show", "--json", "--toml", str(toml),
        DATABASE_STATEMENT_TIMEOUT="1.5", DATABASE_PASSWORD_FILE=str(secret),
    )  # fmt: skip

    shown: dict[str, Any] = json.loads(result.out)["default"]
    table = f"{toml} [databases.default]"
    assert result.status == 0
    assert shown["url"] == {"value": "postgresql://ada@localhost/app", "origin": table}
    assert shown["statement_timeout"] == {"value": 1.5, "origin": "DATABASE_STATEMENT_TIMEOUT"}
    assert shown["password"] == {"value": "'***'", "origin": f"DATABASE_PASSWORD_FILE={secret}"}
    assert shown["pool.size"] == {"value": 3, "origin": table}
    assert shown["pool.max_overflow"] == {"value": 10, "origin": "default"}


def test_show_prints_a_table() -> None:
    """A person reads the same as a machine."""
    result = run("show", DATABASE_URL="sqlite://", DATABASE_POOL_SIZE="7")

    table = rows(result.out)
    assert result.status == 0
    assert table["url"] == ["sqlite://", "DATABASE_URL"]
    assert table["pool.size"] == ["7", "DATABASE_POOL_SIZE"]
    assert table["pool.timeout"] == ["30.0", "default"]


def test_show_traces_the_password_of_a_url() -> None:
    """A password that was moved out of the URL came from where the URL came from."""
    result = run("show", DATABASE_URL=f"postgresql://ada:{CANARY}@localhost/app")

    assert rows(result.out)["password"] == ["'***'", "DATABASE_URL"]


@pytest.mark.parametrize("command", ["check", "show"])
@pytest.mark.parametrize("more", [(), ("--json",)])
@pytest.mark.parametrize(
    "environ",
    [
        {"DATABASE_URL": f"postgresql://ada:{CANARY}@localhost/app"},
        {"DATABASE_URL": f"postgresql://ada@localhost/app?sslpassword={CANARY}"},
        {"DATABASE_URL": "postgresql://ada@localhost/app", "DATABASE_PASSWORD": CANARY},
        {"DATABASE_URL": "sqlite://", "DATABASE_POOL_SIZE": CANARY},
        {"DATABASE_URL": f"postgresql://ada:{CANARY}@localhost:x/app"},
        {"DATABASE_URL": f"{CANARY}:not a url"},
    ],
)
def test_no_secret_is_printed(command: str, more: tuple[str, ...], environ: dict[str, str]) -> None:
    """Neither a table, nor JSON, nor an error shows what may be a secret."""
    result = run(command, *more, **environ)

    assert result.status in {0, 2}
    assert CANARY not in result.out + result.err


def test_every_fault_is_told_at_once() -> None:
    """A person mends a configuration in one go: each fault has a line with its variable."""
    result = run("check", DATABASE_URL="sqlite://", DATABASE_ECHO="perhaps", DATABASE_POOL_SIZE="0")

    assert (result.status, result.out) == (2, "")
    assert "2 faults" in result.err
    assert "default.echo (DATABASE_ECHO): expected true or false" in result.err
    assert "default.pool.size (DATABASE_POOL_SIZE): expected 1 or more" in result.err


def test_faults_are_told_to_machines_too() -> None:
    """With `--json` the faults are JSON on the standard output, and the status is the same."""
    result = run("check", "--json", DATABASE_URL="sqlite://", DATABASE_POOL_SIZE="ten")

    answer = json.loads(result.out)
    assert result.status == 2
    assert [(fault["path"], fault["origin"]) for fault in answer["faults"]] == [
        ("default.pool.size", "DATABASE_POOL_SIZE")
    ]
    assert answer["faults"][0]["problem"] in answer["error"]


@pytest.mark.parametrize("command", ["check", "show"])
def test_nothing_configured_says_what_to_set(command: str, tmp_path: Path) -> None:
    """Without a database the command cannot be used, and says which variable or table to add."""
    toml = tmp_path / "empty.toml"
    toml.touch()

    alone = run(command)
    with_file = run(command, "--toml", str(toml))

    missing = "Database 'default' is not configured: "
    assert (alone.status, with_file.status) == (2, 2)
    assert alone.err == f"{missing}set DATABASE_URL (environment)\n"
    assert with_file.err == (
        f"{missing}add [databases.default] with a url to {toml},"
        " or set DATABASE_URL (environment)\n"
    )


def test_a_syntax_error_names_file_line_and_column(tmp_path: Path) -> None:
    """A TOML file that is none is told with the place where it stops being one."""
    toml = tmp_path / "databases.toml"
    toml.write_text('[databases.default]\nurl = "sqlite://"\npool = = 5\n')

    result = run("check", "--toml", str(toml))

    assert result.status == 2
    assert str(toml) in result.err
    assert "line 3, column 8" in result.err


@pytest.mark.parametrize("name", ["missing.toml", "."])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    """A missing file, or a directory in its place, is a sentence and no traceback."""
    result = run("check", "--toml", str(tmp_path / name))

    assert result.status == 2
    assert f"{tmp_path / name}: the file" in result.err
    assert "cannot be read" in result.err


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("nosuch://host/app", "there is no driver 'nosuch'"),
        ("sqlite://file.db", "write sqlite:///file.db"),
        ("app.db", "expected a database URL"),
    ],
)
def test_a_url_that_cannot_be_used_is_found_offline(url: str, sentence: str) -> None:
    """What can be known without a connection is known without `--ping`."""
    result = run("check", DATABASE_URL=url)

    assert result.status == 2
    assert "default.url (DATABASE_URL)" in result.err
    assert sentence in result.err


@pytest.mark.parametrize("arguments", [(), ("nonsense",), ("check", "--timeout", "0")])
def test_a_command_line_that_means_nothing_has_its_own_status(arguments: tuple[str, ...]) -> None:
    """A wrong command line gives status 2 and shows how it is used."""
    result = run(*arguments, DATABASE_URL="sqlite://")

    assert result.status == 2
    assert "Usage: sessionfactory" in result.out + result.err


def test_help_documents_the_exit_status() -> None:
    """The three statuses can be looked up without the documentation."""
    result = run("--help")

    assert result.status == 0
    words = " ".join(result.out.split())
    assert "1 a database did not answer, or lacks migrations; 2 the configuration" in words


def test_a_bare_install_names_the_extra() -> None:
    """Without Typer the command says how to get it, and does not look like a dead database."""
    code = """import runpy, sys
sys.modules["typer"] = None
runpy.run_module("sessionfactory", run_name="__main__")
"""
    process = shell(sys.executable, "-c", code, DATABASE_URL="sqlite://")

    assert process.stderr == (
        'sessionfactory: typer is missing; pip install "sessionfactory[cli]"\n'
    )
    assert process.returncode == 2


def test_another_kind_is_not_asked_for_an_engine(tmp_path: Path) -> None:
    """A database whose factory is of another kind is shown, and needs no driver of ours."""
    toml = tmp_path / "databases.toml"
    toml.write_text('[databases.default]\nurl = "no://db/app"\nfactory = "builtins:dict"\n')
    result = run("check", "--json", "--toml", str(toml))
    settings = json.loads(result.out)["default"]["settings"]
    assert (result.status, settings["url"], settings["factory"]) == (
        0,
        "no://db/app",
        "builtins:dict",
    )


def test_another_kind_that_cannot_be_loaded(tmp_path: Path) -> None:
    """A kind that cannot be loaded is a fault of the configuration."""
    toml = tmp_path / "databases.toml"
    toml.write_text('[databases.default]\nurl = "sqlite://"\nfactory = "nowhere:make"\n')
    result = run("check", "--toml", str(toml))
    assert result.status == 2
    assert "default.factory" in result.err


def test_a_slip_of_the_pen_is_a_warning() -> None:
    """A variable that is nearly a setting is told in a line of its own, and changes nothing."""
    result = run("check", DATABASE_URL="sqlite://", DATABASE_POOLSIZE="7")
    assert result.status == 0
    assert result.err == (
        "warning: DATABASE_POOLSIZE is not a setting; did you mean 'DATABASE_POOL_SIZE'?\n"
    )
