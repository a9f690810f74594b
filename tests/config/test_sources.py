"""Configuration from a mapping and from a TOML file, with the environment on top."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from sessionfactory import (
    DatabaseSettings,
    NotConfiguredError,
    NullSessionFactory,
    PoolSettings,
    SessionFactoryRegistry,
    SettingsError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

URL = "postgresql://ada@db.example.org/app"


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str | bytes], Path]:
    """Return a function that writes a configuration file."""

    def to_file(content: str | bytes) -> Path:
        file = tmp_path / "databases.toml"
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        return file

    return to_file


def _settings(registry: SessionFactoryRegistry, name: str = "default") -> DatabaseSettings:
    return registry.settings(name)


def _faults(read: Callable[[], object]) -> list[str]:
    with pytest.raises(SettingsError, match="Invalid database settings") as caught:
        read()
    return [str(fault) for fault in caught.value.faults]


def _reason(registry: SessionFactoryRegistry, name: str) -> str:
    factory = registry.get(name)
    assert isinstance(factory, NullSessionFactory)
    with pytest.raises(NotConfiguredError) as caught:
        factory.begin()
    return str(caught.value)


def _mapping_faults(mapping: Any) -> list[str]:
    return _faults(lambda: SessionFactoryRegistry.from_mapping(mapping))


def test_a_mapping_configures_databases_by_name() -> None:
    """Each table of the mapping is a database, and one inherits nothing from another."""
    registry = SessionFactoryRegistry.from_mapping(
        {
            "default": {"url": URL, "pool": {"size": 10}, "echo": True},
            "analytics": {"url": "sqlite://"},
        }
    )
    assert registry.names == ("analytics", "default")
    default = DatabaseSettings(URL, echo=True)
    assert _settings(registry).pool.size == 10
    assert (_settings(registry).url, _settings(registry).echo) == (default.url, True)
    assert _settings(registry, "analytics") == DatabaseSettings("sqlite://")


def test_a_mapping_is_not_changed_and_not_kept() -> None:
    """The caller's mapping stays as it is, and later changes of it have no effect."""
    options: dict[str, object] = {"hide_parameters": True}
    table: dict[str, object] = {"url": "sqlite://", "pool": {}, "engine_options": options}
    mapping: dict[str, object] = {"default": table}
    registry = SessionFactoryRegistry.from_mapping(mapping)
    assert mapping == {"default": table}
    assert table == {"url": "sqlite://", "pool": {}, "engine_options": {"hide_parameters": True}}
    options.clear()
    table.clear()
    assert _settings(registry).engine_options == {"hide_parameters": True}


@pytest.mark.parametrize("mapping", [5, "sqlite://", None, ["default"]])
def test_what_is_no_mapping_is_a_fault(mapping: object) -> None:
    """Anything but a mapping is refused with a sentence, not with a TypeError from inside."""
    assert _mapping_faults(mapping) == [
        "mapping: expected a table of databases, such as {'default': {'url': …}}"
    ]


@pytest.mark.parametrize("table", [5, "sqlite://", None, ["url"]])
def test_a_database_that_is_no_table_is_a_fault(table: object) -> None:
    """A database given as anything but a table is a fault that shows a table."""
    assert _mapping_faults({"default": table}) == [
        "default (mapping): expected a table of settings, such as {'url': …}"
    ]


@pytest.mark.parametrize("name", ["", "Analytics", "1st", "_x", "a-b", "a.b", "a b", "é", "a\n", 5])
def test_a_name_that_cannot_be_a_variable_is_a_fault(name: object) -> None:
    """A database's name is of lower-case letters, digits and underscores."""
    problem = "expected a name of a-z, 0-9 and _, beginning with a letter"
    faults = _mapping_faults({name: {"url": URL}})
    assert [fault for fault in faults if problem in fault] == faults
    assert len(faults) == 1


def test_names_of_letters_digits_and_underscores_are_taken() -> None:
    """All that may be in a name is taken."""
    mapping = {name: {"url": "sqlite://"} for name in ("a", "a1", "a_b_", "database")}
    assert SessionFactoryRegistry.from_mapping(mapping).names == ("a", "a1", "a_b_", "database")


def test_faults_of_a_mapping_name_their_path() -> None:
    """All faults of all databases are told, each with its path from the mapping's root."""
    faults = _mapping_faults(
        {
            "default": {"url": URL, "pool": {"size": "ten"}, "poolsize": 5},
            "analytics": {"echo": True},
        }
    )
    assert faults[0].startswith("default.poolsize (mapping): unknown setting")
    assert faults[1].startswith("default.pool.size (mapping): expected a whole number")
    assert faults[2].startswith("analytics.url ")
    assert faults[2].endswith("is missing: a database needs a URL")
    assert len(faults) == 3


@pytest.mark.parametrize("key", ["pool.size", "engine_options.hide_parameters", ".", "url."])
def test_a_key_with_a_dot_is_an_unknown_setting(key: str) -> None:
    """A dot in a key makes no path: such a key is unknown."""
    (fault,) = _mapping_faults({"default": {"url": URL, key: 5}})
    assert fault.startswith(f"default.{key} (mapping): unknown setting")


@pytest.mark.parametrize("header", ["databases", "tool.sessionfactory.databases"])
def test_a_toml_file_configures_databases(header: str, write: Callable[[str], Path]) -> None:
    """Both tables of a file are read, the short one and the one for ``pyproject.toml``."""
    file = write(
        f"[{header}.default]\nurl = '{URL}'\nlock_timeout = 2\n"
        f"[{header}.default.pool]\nsize = 7\n"
        f"[{header}.analytics]\nurl = 'sqlite://'\n"
        "[tool.ruff]\nline-length = 100\n"
    )
    registry = SessionFactoryRegistry.from_toml(str(file))
    assert registry.names == ("analytics", "default")
    assert _settings(registry, "analytics") == DatabaseSettings("sqlite://")
    pool = PoolSettings(size=7)
    assert _settings(registry) == DatabaseSettings(URL, lock_timeout=2, pool=pool)


def test_both_tables_of_a_file_at_once_are_a_fault(write: Callable[[str], Path]) -> None:
    """A file says its databases in one of the two places."""
    file = write(
        "[databases.default]\nurl = 'sqlite://'\n"
        "[tool.sessionfactory.databases.default]\nurl = 'sqlite://'\n"
    )
    problem = "is there beside [databases]; use one of the two"
    assert _faults(lambda: SessionFactoryRegistry.from_toml(file)) == [
        f"tool.sessionfactory ({file}): {problem}"
    ]


@pytest.mark.parametrize("content", ["", "# nothing\n", "[tool.ruff]\n", "[databases]\n"])
def test_a_file_without_databases_configures_none(
    content: str, write: Callable[[str], Path]
) -> None:
    """A file that names no database gives a registry without databases."""
    assert SessionFactoryRegistry.from_toml(write(content)).names == ()


def test_the_environment_wins_over_the_file_value_by_value(write: Callable[[str], Path]) -> None:
    """What the environment says replaces single values; the rest of the file stays."""
    file = write(
        f"[databases.default]\nurl = '{URL}'\nlock_timeout = 2\npool = {{size = 7, timeout = 8}}\n"
    )
    environ = {
        "DATABASE_POOL_SIZE": "9",
        "DATABASE_LOCK_TIMEOUT": "",
        "ANALYTICS_DATABASE_URL": "sqlite://",
    }
    registry = SessionFactoryRegistry.from_toml(file, environ=environ)
    pool = _settings(registry).pool
    assert (pool.size, pool.timeout, _settings(registry).lock_timeout) == (9, 8.0, 2.0)
    assert registry.names == ("analytics", "default")
    assert _settings(SessionFactoryRegistry.from_toml(file)).pool.size == 7


def test_faults_of_a_file_and_of_the_environment_name_their_origin(
    write: Callable[[str], Path],
) -> None:
    """Each fault says whether the file or a variable said it."""
    file = write(f"[databases.default]\nurl = '{URL}'\necho = 'maybe'\npool = {{size = 7}}\n")
    environ = {"DATABASE_POOL_SIZE": "ten"}
    faults = _faults(lambda: SessionFactoryRegistry.from_toml(file, environ=environ))
    echo, size = sorted(faults)
    assert echo.startswith(f"default.echo ({file} [databases.default]): expected true or false")
    assert size.startswith("default.pool.size (DATABASE_POOL_SIZE): expected a whole number")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"[databases.default]\nurl = \n", "not valid TOML: Invalid value (at line 2, column 7)"),
        (b"[databases.default\n", "not valid TOML: Expected ']' at the end of a table declaration"),
        (b"# caf\xe9\n", "the file is not UTF-8 text"),
        (b"databases = 5\n", "expected a table of databases"),
        (b"databases.default = 5\n", "expected a table of settings"),
        (b"tool = 5\n", "expected a table"),
        (b"[tool]\nsessionfactory = 5\n", "expected a table"),
        (b"[tool]\nsessionfactory = 'x'\n", "expected a table"),
        (b"[[tool.sessionfactory]]\n", "expected a table"),
        (b"[tool.sessionfactory.database.x]\n", "unknown table; expected 'databases'"),
        (b"x = " + b"[" * 5000, "not valid TOML"),
        (b"x = " + b"9" * 5000, "not valid TOML"),
    ],
    ids=lambda given: str(given)[:30],
)
def test_a_file_that_cannot_be_used_is_one_fault(
    content: bytes, problem: str, write: Callable[[bytes], Path]
) -> None:
    """A malformed file is one fault, which names the file, and the line and column if it can."""
    file = write(content)
    (fault,) = _faults(lambda: SessionFactoryRegistry.from_toml(file))
    assert problem in fault
    assert str(file) in fault


def test_a_file_nested_too_deep_is_a_fault(write: Callable[[str], Path]) -> None:
    """Tables in tables beyond all reason are a fault, not a RecursionError."""
    file = write(f"[databases.default]\nurl = 'sqlite://'\n{'a.' * 3000}b = 1\n")
    assert _faults(lambda: SessionFactoryRegistry.from_toml(file))


def test_a_file_that_is_not_there_is_a_fault(tmp_path: Path) -> None:
    """A missing file, a directory, and a name that is none are faults that name the path."""
    missing, null = tmp_path / "none.toml", tmp_path / "a\0b"
    read = SessionFactoryRegistry.from_toml
    assert _faults(lambda: read(missing)) == [
        f"{missing}: the file cannot be read: No such file or directory"
    ]
    assert _faults(lambda: read(tmp_path)) == [
        f"{tmp_path}: the file cannot be read: it is a directory"
    ]
    assert _faults(lambda: read(null)) == [f"{null}: the file cannot be read: invalid file name"]


def test_the_null_factory_says_what_to_add_to_a_mapping() -> None:
    """The error of a database that a mapping lacks names the key to add, and a near name."""
    registry = SessionFactoryRegistry.from_mapping({"analytic": {"url": "sqlite://"}})
    missing = "is not configured: add"
    assert _reason(registry, "analytics") == (
        f"Database 'analytics' {missing} 'analytics' to the mapping of databases;"
        " did you mean 'analytic'?"
    )
    assert _reason(registry, "zzz") == (
        f"Database 'zzz' {missing} 'zzz' to the mapping of databases"
    )
    assert _reason(SessionFactoryRegistry({}), "zzz") == _reason(registry, "zzz")


@pytest.mark.parametrize(
    ("content", "table"),
    [
        ("", "databases.analytics"),
        ("[databases.other]\nurl = 'sqlite://'\n", "databases.analytics"),
        (
            "[tool.sessionfactory.databases.other]\nurl = 'sqlite://'\n",
            "tool.sessionfactory.databases.analytics",
        ),
    ],
)
@pytest.mark.parametrize(
    ("environ", "variable"),
    [(None, ""), ({}, ", or set ANALYTICS_DATABASE_URL (environment)")],
)
def test_the_null_factory_says_what_to_add_to_a_file(
    content: str,
    table: str,
    environ: Mapping[str, str] | None,
    variable: str,
    write: Callable[[str], Path],
) -> None:
    """The error of a database that a file lacks names the table that the file would read."""
    file = write(content)
    registry = SessionFactoryRegistry.from_toml(file, environ=environ)
    assert _reason(registry, "analytics") == (
        f"Database 'analytics' is not configured: add [{table}] with a url to {file}{variable}"
    )


def test_require_names_every_missing_database() -> None:
    """Required databases that are missing are all told when the registry is made."""
    with pytest.raises(NotConfiguredError) as caught:
        SessionFactoryRegistry.from_env({}, require=("default", "analytics"))
    assert str(caught.value).splitlines() == [
        "Database 'default' is not configured: set DATABASE_URL (environment)",
        "Database 'analytics' is not configured: set ANALYTICS_DATABASE_URL (environment)",
    ]


def test_a_variable_below_what_is_no_table(write: Callable[[str], Path]) -> None:
    """A file that says ``pool = 5`` is told so, though a variable speaks of the pool's size."""
    file = write("[databases.default]\nurl = 'sqlite://'\npool = 5\n")
    faults = _faults(
        lambda: SessionFactoryRegistry.from_toml(file, environ={"DATABASE_POOL_SIZE": "7"})
    )
    assert faults == [
        f"default.pool ({file} [databases.default]): expected a table of settings, got int"
    ]
