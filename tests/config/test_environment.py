"""Configuration from the environment: how variables are named, and what they may not say."""

from __future__ import annotations

import warnings
from contextlib import suppress
from typing import cast

import pytest

from sessionfactory import (
    DatabaseSettings,
    NotConfiguredError,
    NullSessionFactory,
    PoolSettings,
    SessionFactoryRegistry,
    SettingsError,
    SettingsWarning,
    SqliteSettings,
)

URL = "postgresql://ada@db.example.org/app"
from_env = SessionFactoryRegistry.from_env


def _settings(environ: dict[str, str], name: str = "default") -> DatabaseSettings:
    return from_env(environ).settings(name)


def _faults(environ: dict[str, str]) -> list[str]:
    with pytest.raises(SettingsError, match="Invalid database settings") as caught:
        from_env(environ)
    return [str(fault) for fault in caught.value.faults]


def _revealed(environ: dict[str, str]) -> str:
    password = _settings(environ).password
    assert password is not None
    return password.reveal()


def _reason(environ: dict[str, str], name: str = "default") -> str:
    factory = from_env(environ).get(name)
    assert isinstance(factory, NullSessionFactory)
    with pytest.raises(NotConfiguredError) as caught:
        factory()
    return str(caught.value)


def test_a_variable_is_prefix_and_path() -> None:
    """A variable is the prefix and the path of a setting, with underscores for dots."""
    environ = {
        "DATABASE_URL": URL,
        "DATABASE_PASSWORD": "pw",
        "DATABASE_POOL_SIZE": "10",
        "DATABASE_POOL_MAX_OVERFLOW": "0",
        "DATABASE_STATEMENT_TIMEOUT": "2.5",
        "DATABASE_CONNECT_TIMEOUT": "none",
        "DATABASE_ECHO": "true",
        "DATABASE_SQLITE_FOREIGN_KEYS": "false",
        "DATABASE_SQLITE_JOURNAL": "keep",
    }
    assert _settings(environ) == DatabaseSettings(
        URL,
        password="pw",
        pool=PoolSettings(size=10, max_overflow=0),
        statement_timeout=2.5,
        connect_timeout=None,
        echo=True,
        sqlite=SqliteSettings(foreign_keys=False, journal="keep"),
    )


def test_the_prefix_names_the_database() -> None:
    """A word before ``DATABASE`` is the name of a database; without one it is ``default``."""
    environ = {
        "DATABASE_URL": URL,
        "ANALYTICS_DATABASE_URL": "sqlite://",
        "ANALYTICS_DATABASE_ECHO": "1",
        "EU_WEST_2_DATABASE_URL": "sqlite:///eu.db",
    }
    assert from_env(environ).names == ("analytics", "default", "eu_west_2")
    assert _settings(environ, "analytics") == DatabaseSettings("sqlite://", echo=True)


def test_nothing_is_inherited_between_databases() -> None:
    """A database has the defaults for all that its own variables do not say."""
    environ = {
        "DATABASE_URL": URL,
        "DATABASE_PASSWORD": "pw",
        "DATABASE_POOL_SIZE": "10",
        "ANALYTICS_DATABASE_URL": URL,
    }
    assert _settings(environ, "analytics") == DatabaseSettings(URL)


def test_the_last_database_splits() -> None:
    """Where ``_DATABASE_`` stands twice, the last one ends the name."""
    environ = {"OLD_DATABASE_COPY_DATABASE_URL": "sqlite://", "DATABASE_DATABASE_URL": "sqlite://"}
    assert from_env(environ).names == ("database", "old_database_copy")


@pytest.mark.parametrize(
    "variable",
    [
        *("1ST_DATABASE_URL", "_X_DATABASE_URL", "Ä_DATABASE_URL"),
        *(
            "A-B_DATABASE_URL",
            "A.B_DATABASE_URL",
            "analytics_DATABASE_URL",
            "database_url",
            "Database_Url",
        ),
    ],
)
def test_a_prefix_that_is_no_name_is_no_database(variable: str) -> None:
    """A prefix that is no name in upper case is ignored: it belongs to another program."""
    assert from_env({variable: URL}).names == ()


@pytest.mark.parametrize(
    "variable",
    [
        *("DATABASE_PORT", "DATABASE_HOST", "DATABASE_NAME", "DATABASE_USER", "DATABASE_"),
        *("DATABASE", "WORDPRESS_DATABASE_HOST", "PATH", "HOME", "DATABASE_URL_REWRITER"),
        *("SOME_DATABASE_DUMP", "MY_DATABASE_POOLSIZE", "DATABASES_URL", "XDATABASE_URL"),
        *("DATABASE_BACKUP_FILE", ""),
    ],
)
def test_unrelated_variables_are_left_alone(variable: str) -> None:
    """Variables of other programs give neither a fault nor a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        registry = from_env({"DATABASE_URL": URL, variable: "nonsense"})
    assert registry.names == ("default",)


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("DATABASE_POOLSIZE", "DATABASE_POOL_SIZE"),
        ("DATABASE_POOL_SIZES", "DATABASE_POOL_SIZE"),
        ("DATABASE_POLL_SIZE", "DATABASE_POOL_SIZE"),
        ("DATABASE_URI", "DATABASE_URL"),
        ("DATABASE_DSN", "DATABASE_URL"),
        ("DATABASE_PASSWD", "DATABASE_PASSWORD"),
        ("DATABASE_STATEMENT_TIMEOUTS", "DATABASE_STATEMENT_TIMEOUT"),
        ("DATABASE_REPLICA", "DATABASE_REPLICAS"),
        ("ANALYTICS_DATABASE_POOLSIZE", "ANALYTICS_DATABASE_POOL_SIZE"),
    ],
)
def test_a_near_miss_warns(variable: str, meant: str) -> None:
    """A variable that looks like a slip of the pen warns, and names the one that was meant."""
    environ = {"DATABASE_URL": URL, "ANALYTICS_DATABASE_URL": URL, variable: "secret-value"}
    with pytest.warns(SettingsWarning) as caught:
        registry = from_env(environ)
    expected = f"{variable} is not a setting; did you mean {meant!r}?"
    assert [str(warning.message) for warning in caught] == [expected]
    assert registry.names == ("analytics", "default")


@pytest.mark.parametrize("value", ["", " ", "\n"])
def test_empty_means_unset(value: str) -> None:
    """An empty variable is no variable: the default holds, and X beside X_FILE is no conflict."""
    environ = {"DATABASE_URL": URL, "DATABASE_POOL_SIZE": value, "DATABASE_URL_FILE": value}
    assert _settings(environ) == DatabaseSettings(URL)
    assert from_env({"DATABASE_ECHO": value, "ANALYTICS_DATABASE_URL": value}).names == ()


def test_the_error_of_use_says_that_the_variable_is_empty() -> None:
    """A URL that is set to nothing is reported as set, but empty."""
    assert _reason({"DATABASE_URL": ""}) == (
        "Database 'default' is not configured: set DATABASE_URL (environment)"
        " (DATABASE_URL is set, but empty)"
    )
    assert "(ANALYTICS_DATABASE_URL is set, but empty)" in _reason(
        {"ANALYTICS_DATABASE_URL": " "}, "analytics"
    )


def test_the_null_factory_names_the_variable() -> None:
    """The error of a database without settings names its variable, and where it was looked for."""
    sentence = "Database 'analytics' is not configured: set ANALYTICS_DATABASE_URL (environment)"
    assert _reason({}, "analytics") == sentence
    assert _reason({"DATABASE_URL": URL, "PATH": "/bin"}, "analytics") == sentence
    near = {"ANALYTIC_DATABASE_URL": URL}
    assert _reason(near, "analytics") == (
        f"{sentence} (ANALYTIC_DATABASE_URL is set, which is not ANALYTICS_DATABASE_URL)"
        "; did you mean 'analytic'?"
    )


def test_options_without_a_url_are_a_fault() -> None:
    """A database with options and no URL is a fault that names the variable to set."""
    (fault,) = _faults({"ANALYTICS_DATABASE_POOL_SIZE": "10", "ANALYTICS_DATABASE_ECHO": "1"})
    assert fault.startswith("analytics.url ")
    assert "ANALYTICS_DATABASE_URL" in fault
    assert "is missing: a database needs a URL" in fault
    assert "names=('default',)" in fault
    (empty,) = _faults({"DATABASE_POOL_SIZE": "10", "DATABASE_URL": ""})
    assert "DATABASE_URL" in empty
    assert "empty" in empty


def test_a_value_and_a_file_for_it_are_a_fault() -> None:
    """A variable beside its ``_FILE`` is a fault, as neither has precedence."""
    environ = {"DATABASE_URL": URL, "DATABASE_PASSWORD": "a", "DATABASE_PASSWORD_FILE": "b"}
    (fault,) = _faults(environ)
    assert fault.startswith("default.password (environment): ")
    assert fault.endswith("DATABASE_PASSWORD and DATABASE_PASSWORD_FILE are both set; keep one")


def test_a_url_and_its_file_are_one_fault() -> None:
    """A URL given twice is one fault, and not also said to be missing."""
    assert _faults({"DATABASE_URL": URL, "DATABASE_URL_FILE": "b", "DATABASE_ECHO": "1"}) == [
        "default.url (environment): DATABASE_URL and DATABASE_URL_FILE are both set; keep one"
    ]


def test_two_passwords_are_a_fault_only_if_they_differ() -> None:
    """A password in the URL beside another in its variable is a fault; the same one is not."""
    url = "postgresql://ada:one@db.example.org/app"
    (fault,) = _faults({"DATABASE_URL": url, "DATABASE_PASSWORD": "two"})
    assert fault.startswith("default.password (DATABASE_PASSWORD): is not the one in the URL")
    assert _revealed({"DATABASE_URL": url, "DATABASE_PASSWORD": "one"}) == "one"


@pytest.mark.parametrize(
    ("plain", "long"),
    [
        ("DATABASE_URL", "DEFAULT_DATABASE_URL"),
        ("DATABASE_URL", "DEFAULT_DATABASE_POOL_SIZE"),
        ("DATABASE_POOL_SIZE", "DEFAULT_DATABASE_URL"),
    ],
)
def test_the_default_database_has_one_prefix(plain: str, long: str) -> None:
    """``DEFAULT_DATABASE_URL`` beside ``DATABASE_URL``, or any such mixture, is a fault."""
    values = {"URL": URL, "SIZE": "5"}
    environ = {name: values[name.rpartition("_")[2]] for name in (plain, long)}
    faults = _faults(environ)
    assert len(faults) == 1
    assert plain in faults[0]
    assert long in faults[0]


def test_the_default_database_may_have_the_long_prefix() -> None:
    """``DEFAULT_DATABASE_URL`` alone is the default database."""
    environ = {"DEFAULT_DATABASE_URL": URL, "DEFAULT_DATABASE_POOL_SIZE": "3", "DATABASE_URL": ""}
    assert _settings(environ) == DatabaseSettings(URL, pool=PoolSettings(size=3))


def test_replicas_are_separated_by_spaces() -> None:
    """Replicas in one variable are separated by white space; each malformed one is a fault."""
    environ = {"DATABASE_URL": URL, "DATABASE_REPLICAS": f" {URL}  postgresql://two/app\n"}
    assert from_env(environ).names == ("default",)
    bad = {"DATABASE_URL": URL, "DATABASE_REPLICAS": f"{URL} mysql://two/app"}
    assert _faults(bad) == [
        "default.replicas[1] (DATABASE_REPLICAS): expected a postgresql URL, as the primary's"
    ]


def test_only_the_named_databases_are_read() -> None:
    """With ``names``, the variables of other databases are left alone, however wrong."""
    environ = {
        "DATABASE_URL": URL,
        "ANALYTICS_DATABASE_URL": "sqlite://",
        "WORDPRESS_DATABASE_PASSWORD": "pw",
        "SHOP_DATABASE_POOL_SIZE": "ten",
    }
    registry = from_env(environ, names=("default", "analytics", "absent"))
    assert registry.names == ("analytics", "default")
    assert from_env(environ, names=[]).names == ()


def test_every_fault_names_its_variable() -> None:
    """All faults are told at once, each with the variable that said it."""
    faults = _faults(
        {
            "DATABASE_URL": URL,
            "DATABASE_POOL_SIZE": "ten",
            "DATABASE_ECHO": "maybe",
            "DATABASE_TLS": "requir",
            "ANALYTICS_DATABASE_URL": "nonsense",
        }
    )
    assert sorted(fault.split(":")[0] for fault in faults) == [
        "analytics.url (ANALYTICS_DATABASE_URL)",
        "default.echo (DATABASE_ECHO)",
        "default.pool.size (DATABASE_POOL_SIZE)",
        "default.tls (DATABASE_TLS)",
    ]


def test_the_environment_of_the_process_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a mapping, the variables of the process are read when the registry is made."""
    monkeypatch.setenv("SESSIONFACTORY_TEST_DATABASE_URL", "sqlite://")
    assert from_env(names=("sessionfactory_test",)).names == ("sessionfactory_test",)


@pytest.mark.parametrize("limit", ["1e308", "1e300"])
@pytest.mark.parametrize("name", ["STATEMENT_TIMEOUT", "LOCK_TIMEOUT", "CONNECT_TIMEOUT"])
def test_a_limit_beyond_all_reason_breaks_nothing(name: str, limit: str) -> None:
    """A time limit too large for any database is a fault, or is taken; it is no crash."""
    with suppress(SettingsError):
        from_env({"DATABASE_URL": URL, f"DATABASE_{name}": limit}).get()


@pytest.mark.parametrize(
    "driver", ["nonsense", "postgresql+nonsense", "sqlite+json", "a+b+c", "x+"]
)
def test_an_unknown_driver_is_a_fault_of_the_url(driver: str) -> None:
    """A driver that does not exist is told when the factory is asked for, with its variable."""
    registry = from_env({"DATABASE_URL": f"{driver}://"})
    with pytest.raises(SettingsError, match="there is no driver") as caught:
        registry.get()
    assert str(caught.value).startswith(
        f"Invalid database settings: default.url (DATABASE_URL): there is no driver {driver!r}"
    )


@pytest.mark.parametrize(
    ("driver", "meant"),
    [
        ("postgresl", "postgresql"),
        ("postgresql+psycopg3", "postgresql+psycopg"),
        ("mysql+mypysql", "mysql+pymysql"),
    ],
)
def test_a_driver_that_is_nearly_right_is_named(driver: str, meant: str) -> None:
    """A slip in the name of a driver is told with the name that was meant."""
    with pytest.raises(SettingsError, match="there is no driver") as caught:
        from_env({"DATABASE_URL": f"{driver}://host/db"}).get()
    assert str(caught.value).endswith(f"; did you mean {meant!r}?")


@pytest.mark.parametrize("environ", [5, ["DATABASE_URL"]])
def test_what_is_no_environment_is_a_fault(environ: object) -> None:
    """Anything but a mapping is refused with a sentence."""
    with pytest.raises(SettingsError, match="expected a mapping of variables"):
        SessionFactoryRegistry.from_env(cast("dict[str, str]", environ))


def test_a_value_that_is_no_text_is_a_fault() -> None:
    """A variable holds text, in a made-up environment too."""
    environ = cast("dict[str, str]", {"DATABASE_URL": "sqlite://", "DATABASE_POOL_SIZE": 5})
    with pytest.raises(SettingsError, match=r"default\.pool\.size.*expected text, got int"):
        SessionFactoryRegistry.from_env(environ)
