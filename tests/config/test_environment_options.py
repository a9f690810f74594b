"""Variables for options of the engine, names used by habit, variables of other programs."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

from sessionfactory import (
    AsyncSessionFactoryRegistry,
    DatabaseSettings,
    NotConfiguredError,
    SessionFactoryRegistry,
    SettingsError,
    SettingsWarning,
)

URL = "postgresql://ada@db.internal/app"


def settings(**variables: str) -> DatabaseSettings:
    """Return the settings of the default database."""
    environ = {"DATABASE_URL": URL} | {f"DATABASE_{name}": text for name, text in variables.items()}
    with warnings.catch_warnings(action="error"):
        return SessionFactoryRegistry.from_env(environ).settings()


@pytest.mark.parametrize(
    ("variable", "text", "expected"),
    [
        ("ISOLATION_LEVEL", "serializable", {"isolation_level": "SERIALIZABLE"}),
        ("ISOLATION_LEVEL", "repeatable_read", {"isolation_level": "REPEATABLE READ"}),
        ("HIDE_PARAMETERS", "yes", {"hide_parameters": True}),
        ("LOGGING_NAME", "shop", {"logging_name": "shop"}),
        ("ENGINE_OPTIONS__MAX_IDENTIFIER_LENGTH", "63", {"max_identifier_length": 63}),
        ("CONNECT_ARGS__KEEPALIVES_IDLE", "30", {"connect_args": {"keepalives_idle": 30}}),
        ("CONNECT_ARGS__GSSENCMODE", "disable", {"connect_args": {"gssencmode": "disable"}}),
        ("CONNECT_ARGS__AUTOCOMMIT", "true", {"connect_args": {"autocommit": True}}),
        ("CONNECT_ARGS__APPLICATION_NAME", "007", {"connect_args": {"application_name": "007"}}),
    ],
)
def test_options_of_the_engine(variable: str, text: str, expected: dict[str, object]) -> None:
    """What is no setting of ours reaches the engine from the environment, with its type."""
    assert settings(**{variable: text}).engine_options == expected


def test_habitual_names_are_settings() -> None:
    """The short names of SQLAlchemy's arguments mean the settings that stand for them."""
    found = settings(MAX_OVERFLOW="3", AUTOFLUSH="no", EXPIRE_ON_COMMIT="true", PRE_PING="off")

    assert (found.pool.max_overflow, found.pool.pre_ping) == (3, False)
    assert (found.session.autoflush, found.session.expire_on_commit) == (False, True)


@pytest.mark.parametrize(("sslmode", "tls"), [("require", "require"), ("verify-full", "verify")])
def test_sslmode_means_tls(sslmode: str, tls: str) -> None:
    """Libpq's word works on every driver, where there is one of ours for it."""
    assert settings(SSLMODE=sslmode).tls == tls


def test_another_sslmode_is_refused() -> None:
    """A word that would weaken the connection is never taken for another one."""
    with pytest.raises(SettingsError, match=r"tls \(DATABASE_SSLMODE\).*write another sslmode"):
        settings(SSLMODE="prefer")


def test_a_habitual_name_beside_the_setting_is_a_fault() -> None:
    """Two variables for one setting are a fault that names both."""
    with pytest.raises(SettingsError, match="DATABASE_MAX_OVERFLOW and DATABASE_POOL_MAX_OVERFLOW"):
        settings(MAX_OVERFLOW="3", POOL_MAX_OVERFLOW="4")


def test_a_secret_argument_is_refused_and_not_shown() -> None:
    """A password belongs into its own variable, and no message repeats it."""
    with pytest.raises(SettingsError, match="a secret belongs into password or url") as caught:
        settings(CONNECT_ARGS__PASSWORD="canary")
    assert "DATABASE_CONNECT_ARGS__PASSWORD" in str(caught.value)
    assert "canary" not in str(caught.value)


def test_options_of_a_file_and_of_variables_add_up(tmp_path: Any) -> None:
    """A variable replaces the one option that it names, and leaves the others of the file."""
    file = tmp_path / "databases.toml"
    file.write_text(
        '[databases.default]\nurl = "postgresql://db/app"\n'
        "[databases.default.engine_options]\nhide_parameters = true\n"
        "[databases.default.engine_options.connect_args]\nkeepalives = 1\n"
    )
    environ = {"DATABASE_CONNECT_ARGS__KEEPALIVES": "0", "DATABASE_LOGGING_NAME": "shop"}

    registry = SessionFactoryRegistry.from_toml(file, environ=environ)

    assert registry.settings().engine_options == {
        "hide_parameters": True,
        "connect_args": {"keepalives": 0},
        "logging_name": "shop",
    }


@pytest.mark.parametrize(
    "variable",
    ["KEYCLOAK_DATABASE_PASSWORD", "MYSQL_DATABASE_PASSWORD", "X_DATABASE_PASSWORD_FILE"],
)
def test_a_password_of_another_program_does_not_stop_the_start(variable: str) -> None:
    """A password alone configures nothing; the error of using that database names the URL."""
    with warnings.catch_warnings(action="error"):
        registry = SessionFactoryRegistry.from_env({"DATABASE_URL": URL, variable: "canary"})

    assert registry.names == ("default",)
    name = variable.partition("_DATABASE_")[0].lower()
    with pytest.raises(NotConfiguredError, match=f"set {name.upper()}_DATABASE_URL"):
        registry.get(name).begin()


@pytest.mark.parametrize("url", ["jdbc:postgresql://db:5432/app", "Server=db;Database=app"])
def test_a_url_of_another_program_names_the_cure(url: str) -> None:
    """Where another program's URL cannot be used, the message says how to leave it out."""
    environ = {"DATABASE_URL": URL, "SPRING_DATABASE_URL": url}
    with pytest.raises(SettingsError, match=r"names=\('default',\)"):
        SessionFactoryRegistry.from_env(environ)

    assert SessionFactoryRegistry.from_env(environ, names=("default",)).names == ("default",)


@pytest.mark.parametrize("registry_class", [SessionFactoryRegistry, AsyncSessionFactoryRegistry])
def test_overrides_take_what_only_code_can_express(registry_class: Any) -> None:
    """Values of code win over variables, one by one, and add databases."""
    listener = object()
    registry = registry_class.from_env(
        {"DATABASE_URL": URL, "DATABASE_POOL_SIZE": "7", "DATABASE_ECHO": "true"},
        overrides={
            "default": {"echo": False, "engine_options": {"json_serializer": listener}},
            "reports": {"url": "sqlite://"},
        },
    )

    found = registry.settings()
    assert (found.pool.size, found.echo) == (7, False)
    assert found.engine_options == {"json_serializer": listener}
    assert registry.names == ("default", "reports")


@pytest.mark.parametrize(
    "variable", ["DATABSE_URL", "DATABASE_ULR", "DATABASE_UR", "DATABASES_URL", "_DATABASE_URL"]
)
def test_a_slip_in_the_name_of_the_url_is_reported(variable: str) -> None:
    """Where the URL is missing, a variable that nearly has its name is named, at once and later."""
    with pytest.warns(SettingsWarning, match=f"^{variable} is not a setting; .* 'DATABASE_URL'"):
        registry = SessionFactoryRegistry.from_env({variable: URL})

    with pytest.raises(NotConfiguredError, match=f"{variable} is set, which is not DATABASE_URL"):
        registry.get().begin()
    with pytest.raises(SettingsError, match=f"{variable} is set, which is not DATABASE_URL"):
        SessionFactoryRegistry.from_env({variable: URL, "DATABASE_POOL_SIZE": "3"})


def test_the_warning_points_at_the_caller() -> None:
    """A warning names the line that reads the environment."""
    with pytest.warns(SettingsWarning) as caught:
        SessionFactoryRegistry.from_env({"DATABASE_URL": URL, "DATABASE_POOLSIZE": "3"})

    assert [warning.filename for warning in caught] == [__file__]
