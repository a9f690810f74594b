"""Settings as a caller in code gives them: their defaults, types, ranges and choices."""

from __future__ import annotations

import math
from typing import Any

import attrs
import pytest

from sessionfactory import (
    DatabaseSettings,
    PoolSettings,
    SessionFactoryRegistry,
    SessionSettings,
    SettingsError,
    SqliteSettings,
)
from sessionfactory.config.values import milliseconds

URL = "postgresql://ada@db.example.org/app"
HUGE = 10**400


def _faults(**given: Any) -> dict[str, str]:
    with pytest.raises(SettingsError, match="Invalid database settings") as caught:
        DatabaseSettings(URL, **given)
    return {fault.path: fault.problem for fault in caught.value.faults}


def _unknown(table: dict[str, object]) -> dict[str, str]:
    with pytest.raises(SettingsError, match="Invalid database settings") as caught:
        SessionFactoryRegistry.from_mapping({"default": {"url": URL, **table}})
    return {fault.path.removeprefix("default."): fault.problem for fault in caught.value.faults}


def test_defaults_of_a_pool() -> None:
    """A pool has the defaults that the design promises."""
    assert PoolSettings() == PoolSettings(
        size=5,
        max_overflow=10,
        timeout=30.0,
        recycle=1800.0,
        pre_ping=True,
        ping_after=5.0,
        ping_timeout=1.0,
        reset="rollback",
        kind="fair",
        hold_warning=None,
        processes=1,
        server_connections=None,
    )


def test_defaults_of_sessions_and_sqlite() -> None:
    """Sessions and SQLite have the defaults that the design promises."""
    sessions = SessionSettings(autoflush=True, expire_on_commit=False)
    assert SessionSettings() == sessions
    assert SqliteSettings() == SqliteSettings(
        begin="immediate", journal="wal", synchronous="normal", busy_timeout=5.0, foreign_keys=True
    )


def test_defaults_of_a_database() -> None:
    """A database that is only a URL has the defaults that the design promises."""
    assert DatabaseSettings(URL) == DatabaseSettings(
        URL,
        password=None,
        connect_timeout=10.0,
        statement_timeout=None,
        lock_timeout=None,
        idle_in_transaction_timeout=None,
        tls="driver",
        echo=False,
        pipeline=False,
        replicas=(),
        pool=PoolSettings(),
        session=SessionSettings(),
        sqlite=SqliteSettings(),
        engine_options={},
    )


@pytest.mark.parametrize(
    "settings", [PoolSettings(), SessionSettings(), SqliteSettings(), DatabaseSettings(URL)]
)
def test_settings_are_frozen(settings: attrs.AttrsInstance) -> None:
    """No field of settings can be assigned."""
    name = attrs.fields(type(settings))[0].name
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        setattr(settings, name, "other")


def test_only_the_url_is_positional() -> None:
    """The URL may be given by position, and nothing else may."""
    build: Any = DatabaseSettings
    assert build(URL) == build(url=URL)
    with pytest.raises(TypeError, match="positional"):
        build(URL, "secret")
    for cls in (PoolSettings, SessionSettings, SqliteSettings):
        untyped: Any = cls
        with pytest.raises(TypeError, match="positional"):
            untyped(1)


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("pool.size", True, "expected a whole number, got bool"),
        ("pool.size", 5.0, "expected a whole number, got float"),
        ("pool.size", None, "expected a whole number, got NoneType"),
        ("pool.size", "ten", "expected a whole number, got text"),
        ("pool.size", "5.0", "expected a whole number, got text"),
        ("pool.size", [5], "expected a whole number, got list"),
        ("pool.max_overflow", "none", "expected a whole number, got text"),
        ("pool.timeout", True, "expected a number, got bool"),
        ("pool.timeout", "soon", "expected a number, got text"),
        ("pool.timeout", math.nan, "expected a number, got float"),
        ("pool.timeout", math.inf, "expected seconds up to 2147483"),
        ("pool.timeout", "nan", "expected a number, got text"),
        ("pool.timeout", "inf", "expected a number, got text"),
        pytest.param("pool.timeout", HUGE, "expected seconds up to 2147483", id="huge"),
        ("pool.ping_after", None, "expected a number, got NoneType"),
        ("pool.pre_ping", 1, "expected true or false, got int"),
        ("pool.pre_ping", "maybe", "expected true or false, got text"),
        ("pool.pre_ping", "", "expected true or false, got text"),
        ("session.autoflush", None, "expected true or false, got NoneType"),
        ("sqlite.foreign_keys", 0.0, "expected true or false, got float"),
    ],
)
def test_a_value_of_the_wrong_type_is_a_fault(path: str, value: object, expected: str) -> None:
    """A value of another type is a fault that names the path and the type that was expected."""
    section, name = path.split(".")
    assert _faults(**{section: {name: value}})[path].startswith(expected)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("connect_timeout", False, "expected a number, got bool"),
        ("echo", 1, "expected true or false, got int"),
        ("tls", True, "expected 'driver', 'require' or 'verify'"),
        ("password", 1234, "expected text, got int"),
        ("password", b"secret", "expected text, got bytes"),
        ("replicas", 5, "expected a list of database URLs, got int"),
        ("engine_options", 5, "expected a table of options, got int"),
        ("pool", 5, "expected a table of settings, got int"),
        ("session", "strict", "expected a table of settings, got text"),
        ("sqlite", SessionSettings(), "expected a table of settings, got SessionSettings"),
    ],
)
def test_a_database_value_of_the_wrong_type_is_a_fault(
    name: str, value: object, expected: str
) -> None:
    """A value of another type in a database is a fault that says what was expected."""
    assert _faults(**{name: value}) == {name: expected}


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("pool.size", -1, "expected 1 or more"),
        ("pool.max_overflow", -1, "expected 0 or more, got -1"),
        pytest.param("pool.max_overflow", -HUGE, "expected a number up to 2147483", id="huge"),
        ("pool.timeout", 0, "expected more than 0, got 0"),
        ("pool.timeout", -0.5, "expected more than 0, got -0.5"),
        ("pool.recycle", 0, "expected more than 0, got 0"),
        ("pool.recycle", -1, "expected more than 0, got -1"),
        ("pool.ping_after", -1, "expected 0 or more, got -1"),
        ("pool.ping_timeout", 0, "expected more than 0, got 0"),
        ("pool.hold_warning", 0, "expected more than 0, got 0"),
        ("pool.processes", 0, "expected 1 or more, got 0"),
        ("sqlite.busy_timeout", -0.001, "expected 0 or more, got -0.001"),
    ],
)
def test_a_value_out_of_range_is_a_fault(path: str, value: object, expected: str) -> None:
    """A number out of range is a fault that names the path and the least value."""
    section, name = path.split(".")
    assert _faults(**{section: {name: value}})[path].startswith(expected)


@pytest.mark.parametrize(
    "name", ["connect_timeout", "statement_timeout", "lock_timeout", "idle_in_transaction_timeout"]
)
@pytest.mark.parametrize("value", [0, -1, "0"])
def test_a_time_limit_of_nothing_is_a_fault(name: str, value: object) -> None:
    """A time limit of zero or less, which servers take as no limit, is a fault."""
    assert list(_faults(**{name: value})) == [name]


@pytest.mark.parametrize("size", [0, "0"])
def test_an_unlimited_pool_is_refused_with_its_reason(size: object) -> None:
    """A pool of size 0 is refused with a sentence that says what SQLAlchemy makes of it."""
    problem = _faults(pool={"size": size})["pool.size"]
    assert problem == (
        "expected 1 or more: SQLAlchemy takes 0 as unlimited, and an unlimited pool exhausts the"
        " server; for a connection per checkout use kind='none'"
    )


def test_values_at_the_edge_of_their_range_are_taken() -> None:
    """The least allowed value of each range is taken."""
    pool = PoolSettings(size=1, max_overflow=0, ping_after=0, timeout=0.001)
    assert (pool.size, pool.max_overflow, pool.ping_after, pool.timeout) == (1, 0, 0.0, 0.001)
    assert SqliteSettings(busy_timeout=0).busy_timeout == 0
    assert DatabaseSettings(URL, statement_timeout=0.001).statement_timeout == 0.001


@pytest.mark.parametrize(
    ("name", "given", "taken"),
    [
        ("pool.size", "10", 10),
        ("pool.size", " 10 ", 10),
        ("pool.timeout", "2.5", 2.5),
        ("pool.timeout", 2, 2.0),
        ("pool.timeout", "none", None),
        ("pool.timeout", "None", None),
        ("pool.timeout", None, None),
        ("pool.recycle", "none", None),
        ("pool.pre_ping", "false", False),
        ("pool.pre_ping", "False", False),
        ("pool.pre_ping", "0", False),
        ("pool.pre_ping", "no", False),
        ("pool.pre_ping", "off", False),
        ("session.expire_on_commit", "true", True),
        ("session.expire_on_commit", "1", True),
        ("session.expire_on_commit", "yes", True),
        ("session.expire_on_commit", " ON ", True),
        ("pool.kind", "NONE", "none"),
        ("sqlite.journal", " keep ", "keep"),
    ],
)
def test_text_is_taken_for_what_it_says(name: str, given: object, taken: object) -> None:
    """Text becomes the type of its field, as files and environments need it."""
    section, field = name.split(".")
    untyped: Any = {section: {field: given}}
    value = getattr(getattr(DatabaseSettings(URL, **untyped), section), field)
    assert (type(value), value) == (type(taken), taken)


@pytest.mark.parametrize(
    ("table", "path", "expected"),
    [
        ({"tls": "requir"}, "tls", "'driver', 'require' or 'verify'; did you mean 'require'?"),
        ({"tls": "on"}, "tls", "'driver', 'require' or 'verify'"),
        ({"pool": {"kind": "fare"}}, "pool.kind", "'fair' or 'none'; did you mean 'fair'?"),
        ({"pool": {"reset": "roll-back"}}, "pool.reset", "'state'; did you mean 'rollback'?"),
        (
            {"sqlite": {"begin": "imediate"}},
            "sqlite.begin",
            "expected 'immediate' or 'deferred'; did you mean 'immediate'?",
        ),
        ({"sqlite": {"journal": None}}, "sqlite.journal", "'wal', 'delete', 'truncate'"),
        ({"sqlite": {"synchronous": "FUL"}}, "sqlite.synchronous", "did you mean 'full'?"),
    ],
)
def test_a_choice_that_does_not_exist_is_a_fault(
    table: dict[str, object], path: str, expected: str
) -> None:
    """A word that is no choice is a fault that lists the choices and the nearest of them."""
    assert expected in _faults(**table)[path]


@pytest.mark.parametrize(
    ("table", "path", "nearest"),
    [
        ({"poolsize": 5}, "poolsize", "pool.size"),
        ({"pool_size": 5}, "pool_size", "pool.size"),
        ({"max_overflow": 5}, "max_overflow", "pool.max_overflow"),
        ({"passwort": "x"}, "passwort", "password"),
        ({"engine-options": {"a": 1}}, "engine-options", "engine_options"),
        ({"statement_timeouts": 5}, "statement_timeouts", "statement_timeout"),
        ({"pool": {"sizes": 5}}, "pool.sizes", "size"),
        ({"pol": {}}, "pol", "pool"),
    ],
)
def test_an_unknown_key_is_a_fault_with_the_nearest_known_one(
    table: dict[str, object], path: str, nearest: str
) -> None:
    """An unknown key is a fault that offers the setting that was probably meant."""
    assert _unknown(table)[path] == f"unknown setting; did you mean {nearest!r}?"


def test_an_unknown_key_that_is_like_nothing_gets_no_suggestion() -> None:
    """A key that resembles no setting is named without a suggestion."""
    assert _unknown({"zzz": 1, "pool": {"qqq": 1}}) == {
        "zzz": "unknown setting",
        "pool.qqq": "unknown setting",
    }


def test_all_faults_are_told_at_once() -> None:
    """Every fault of every level stands in one error, and the message lists all of them."""
    with pytest.raises(SettingsError, match="6 faults") as caught:
        SessionFactoryRegistry.from_mapping(
            {
                "default": {
                    "url": "nonsense",
                    "echo": "maybe",
                    "pool": {"size": "ten", "timeout": -1, "tiemout": 3},
                    "sqlite": {"journal": "wall"},
                }
            }
        )
    assert {fault.path for fault in caught.value.faults} == {
        "default.url",
        "default.echo",
        "default.pool.size",
        "default.pool.timeout",
        "default.pool.tiemout",
        "default.sqlite.journal",
    }
    lines = str(caught.value).splitlines()
    assert lines[0] == "Invalid database settings, 6 faults:"
    assert lines[1:] == [f"  - {fault}" for fault in caught.value.faults]


def test_settings_error_is_a_value_error() -> None:
    """A handler for ``ValueError`` catches it, and one fault makes a message of one line."""
    with pytest.raises(ValueError, match=r"^Invalid database settings: size: expected 1 or more"):
        PoolSettings(size=0)


@pytest.mark.parametrize(
    ("seconds", "expected"), [(0.0, 0), (0.0001, 1), (0.25, 250), (1.0001, 1001), (5, 5000)]
)
def test_a_duration_in_milliseconds_is_rounded_up(seconds: float, expected: int) -> None:
    """A limit of less than a millisecond does not become 0, which servers read as "no limit"."""
    assert milliseconds(seconds) == expected
