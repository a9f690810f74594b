"""Where the databases of the plugin's registry come from, and what is said of missing ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support.inner_pytest import inner

if TYPE_CHECKING:
    import pytest

    from tests.support.inner_pytest import InnerPytest

__all__ = ["inner"]

SHOWS_DATABASES = """
def test_shows(session_registry):
    for name in session_registry.names:
        print(f"{name} is {session_registry.get(name).settings.url}")
"""


def databases(run: pytest.RunResult) -> dict[str, str]:
    """Return what ``SHOWS_DATABASES`` printed."""
    lines = (line.partition(" is ") for line in run.outlines if " is sqlite" in line)
    return {name.rpartition("]")[2].rpartition(" ")[2]: url for name, _, url in lines}


def test_a_database_that_is_not_configured_says_what_to_set(
    inner: InnerPytest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a URL the factory is the null factory, whose error names the variable."""
    monkeypatch.delenv("DATABASE_URL")
    inner.tests("""
def test_asks(session_factory):
    add(session_factory)
    """)

    run = inner.run()

    run.assert_outcomes(failed=1)
    ways = "set DATABASE_URL (environment), or run pytest with --sessionfactory-url URL"
    run.stdout.fnmatch_lines([f"*NotConfiguredError: Database 'default' is not configured: {ways}"])


def test_a_database_that_the_options_do_not_name_says_how_to_name_it(inner: InnerPytest) -> None:
    """With URLs given, the error of another database names the option and not the environment."""
    inner.tests("""
@pytest.mark.database("analytics")
def test_asks(session_factory):
    add(session_factory)
    """)

    run = inner.run("--sessionfactory-url", "sqlite:///app.db")

    run.assert_outcomes(failed=1)
    run.stdout.fnmatch_lines(
        ["*NotConfiguredError: * run pytest with --sessionfactory-url analytics=URL"]
    )


def test_the_environment_is_read_without_urls(
    inner: InnerPytest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without option and ini file, the databases are those of the environment."""
    monkeypatch.setenv("ANALYTICS_DATABASE_URL", "sqlite:///analytics.db")
    inner.tests(SHOWS_DATABASES)

    assert databases(inner.run("-s")) == {
        "analytics": "sqlite:///analytics.db",
        "default": "sqlite:///app.db",
    }


def test_urls_replace_the_environment(inner: InnerPytest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With ``--sessionfactory-url`` no other database of the environment can be reached."""
    monkeypatch.setenv("ANALYTICS_DATABASE_URL", "sqlite:///analytics.db")
    monkeypatch.setenv("DATABASE_PASSWORD", "of-another-database")
    inner.tests(SHOWS_DATABASES)

    run = inner.run("-s", "--sessionfactory-url", "sqlite:///option.db")

    assert databases(run) == {"default": "sqlite:///option.db"}


def test_the_command_line_wins_over_the_ini_file_name_by_name(inner: InnerPytest) -> None:
    """The ini file's databases stay, but for those that the command line names."""
    inner.ini(
        "sessionfactory_url =",
        "  sqlite:///ini.db?cached_statements=5",
        "  analytics=sqlite:///analytics.db",
    )
    inner.tests(SHOWS_DATABASES)

    assert databases(inner.run("-s")) == {
        "analytics": "sqlite:///analytics.db",
        "default": "sqlite:///ini.db?cached_statements=5",
    }
    assert databases(inner.run("-s", "--sessionfactory-url", "default=sqlite:///option.db")) == {
        "analytics": "sqlite:///analytics.db",
        "default": "sqlite:///option.db",
    }


def test_no_password_is_shown(inner: InnerPytest) -> None:
    """A URL that cannot be used is not printed with its password, local variables included."""
    inner.tests(SHOWS_DATABASES)
    url = "postgresql://app:hunter2@db:port/shop"

    run = inner.run("-l", "--tb=long", f"--sessionfactory-url={url}")

    run.assert_outcomes(errors=1)
    run.stdout.fnmatch_lines(
        ["*SettingsError: *default.url (--sessionfactory-url or sessionfactory_url): *"]
    )
    run.stdout.no_fnmatch_line("*hunter2*")
