"""What is checked when a registry is made, and which factories it takes."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlalchemy.orm import sessionmaker

from sessionfactory import (
    AsyncNullSessionFactory,
    AsyncSessionFactoryRegistry,
    DatabaseSettings,
    NotConfiguredError,
    NullSessionFactory,
    SessionFactoryRegistry,
    SettingsError,
)
from tests.support.commands import run

if TYPE_CHECKING:
    from pathlib import Path

SYNC, ASYNC = SessionFactoryRegistry, AsyncSessionFactoryRegistry
PUBLIC = "postgresql://app@db.example.org/shop"


@pytest.mark.parametrize(
    ("registry_class", "url", "problem"),
    [
        (SYNC, "postgress://app@db/shop", "there is no driver 'postgress'"),
        (SYNC, "postgresql+pyscopg://app@db/shop", "did you mean 'postgresql\\+psycopg'"),
        (SYNC, "oracle+cx_oracle://app@db/shop", "cx_Oracle|cx_oracle"),
        (SYNC, "postgresql+asyncpg://app@db/shop", "asyncpg"),
        (ASYNC, "postgresql+psycopg2://app@db/shop", "psycopg2"),
        (ASYNC, "nonsense://", "there is no driver 'nonsense'"),
    ],
)
def test_a_required_database_needs_a_driver_of_its_half(
    registry_class: Any, url: str, problem: str
) -> None:
    """A driver that is unknown, not installed or of the other half is refused at the start."""
    environ = {"DATABASE_URL": url}
    with pytest.raises(SettingsError, match=problem) as caught:
        registry_class.from_env(environ, require=("default",))

    assert "default.url (DATABASE_URL)" in str(caught.value)
    registry_class.from_env(environ)  # a database that is not required is checked when it is used


def test_all_that_is_wrong_with_required_databases_is_reported_at_once() -> None:
    """The faults of all databases are in one error."""
    databases = {name: DatabaseSettings(f"no{name}://") for name in ("a", "b", "c")}

    with pytest.raises(SettingsError) as caught:
        SYNC(databases, require=("a", "c"))

    assert [fault.path for fault in caught.value.faults] == ["a.url", "c.url"]


def test_a_custom_kind_that_is_required_is_loaded(tmp_path: Path) -> None:
    """A kind that cannot be loaded is refused at the start, too."""
    table = {"url": "sqlite://", "factory": "no_such_package:make"}

    with pytest.raises(SettingsError, match="no_such_package"):
        SYNC.from_mapping({"default": table}, require=("default",))


@pytest.mark.parametrize("registry_class", [SYNC, ASYNC])
def test_strict_makes_warnings_faults(registry_class: Any) -> None:
    """What would be a warning, at the start or later, stops the start."""
    environ = {"DATABASE_URL": PUBLIC, "DATABASE_POOLSIZE": "3"}
    with pytest.raises(SettingsError, match="2 faults") as caught:
        registry_class.from_env(environ, strict=True)

    first, second = (str(fault) for fault in caught.value.faults)
    assert first == "DATABASE_POOLSIZE is not a setting; did you mean 'DATABASE_POOL_SIZE'?"
    assert second.startswith("default.tls: ")
    with warnings.catch_warnings(action="error"):
        registry_class.from_env({"DATABASE_URL": "sqlite://"}, strict=True)


def test_strict_checks_every_database() -> None:
    """Every database counts as required, however the registry is made."""
    broken = {"default": DatabaseSettings("nonsense://")}

    with pytest.raises(SettingsError, match="there is no driver 'nonsense'"):
        SYNC(broken, strict=True)
    with pytest.raises(SettingsError, match="there is no driver 'nonsense'"):
        SYNC.from_mapping({"default": {"url": "nonsense://"}}, strict=True)


def test_the_command_has_a_strict_check() -> None:
    """`check --strict` prints the warning and fails; without it, the check passes."""
    environ = {"DATABASE_URL": "sqlite://", "DATABASE_POOLSIZE": "3"}

    assert run("check", **environ).status == 0
    result = run("check", "--strict", **environ)
    assert result.status == 2
    assert "DATABASE_POOLSIZE is not a setting" in result.err


def test_the_command_has_a_version() -> None:
    """`--version` prints what a bug report needs."""
    result = run("--version")

    assert result.status == 0
    assert [line.split()[0] for line in result.out.splitlines()] == [
        "sessionfactory",
        "SQLAlchemy",
        "Python",
    ]


@pytest.mark.parametrize(
    ("registry_class", "given", "halves"),
    [
        (SYNC, async_sessionmaker(), "the sync half, and async_sessionmaker is of the async half"),
        (SYNC, AsyncNullSessionFactory("none"), "AsyncNullSessionFactory is of the async half"),
        (ASYNC, sessionmaker(), "the async half, and sessionmaker is of the sync half"),
        (ASYNC, NullSessionFactory("none"), "NullSessionFactory is of the sync half"),
    ],
)
def test_a_factory_of_the_other_half_is_refused(
    registry_class: Any, given: object, halves: str
) -> None:
    """`register` and `override` say what was given, instead of an error at the first session."""
    registry = registry_class({"default": DatabaseSettings("sqlite://")})

    with pytest.raises(TypeError, match=f"^register takes .*{halves}"):
        registry.register("other", given)
    with pytest.raises(TypeError, match=f"^override takes .*{halves}"):
        registry.override("default", given)
    assert registry.names == ("default",)


def test_settings_are_found_without_an_engine() -> None:
    """`settings` shows what is configured, and builds nothing."""
    registry = SYNC.from_env({"DATABASE_URL": "nonsense://", "ANALYTICS_DATABASE_URL": PUBLIC})
    registry.register("elsewhere", sessionmaker())

    assert registry.settings("analytics") == DatabaseSettings(PUBLIC)
    assert registry.settings().url.drivername == "nonsense"
    with pytest.raises(NotConfiguredError, match="registered as 'elsewhere' has no settings here"):
        registry.settings("elsewhere")
    with pytest.raises(NotConfiguredError, match="set MISSING_DATABASE_URL"):
        registry.settings("missing")


def test_nothing_that_prints_a_signature_prints_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`help` and documentation tools show a default, which is not the environment."""
    import inspect  # noqa: PLC0415 - of this test
    import pydoc  # noqa: PLC0415

    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary")
    for cls in (SYNC, ASYNC):
        assert "canary" not in pydoc.render_doc(cls)
        assert inspect.signature(cls.from_env).parameters["environ"].default is None
