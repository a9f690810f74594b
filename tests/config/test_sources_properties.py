"""Whatever a configuration says, it becomes settings or one ``SettingsError``, and shows no secret.

Hypothesis makes up mappings, TOML texts and environments, with passwords in likely and unlikely
places.
"""

from __future__ import annotations

import json
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from sessionfactory import (
    SessionFactoryRegistry,
    SettingsError,
    SettingsWarning,
    SqlAlchemySessionFactory,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from hypothesis.strategies import SearchStrategy

CANARY = "canary-4711"
SETTINGS = [
    *("url", "password", "connect_timeout", "statement_timeout", "lock_timeout", "tls", "echo"),
    *("idle_in_transaction_timeout", "pipeline", "replicas", "engine_options", "url_secrets"),
    *("pool", "session", "sqlite", "size", "max_overflow", "timeout", "recycle", "pre_ping"),
    *("ping_after", "ping_timeout", "reset", "kind", "hold_warning", "processes", "autoflush"),
    *("server_connections", "owner", "begin"),
    *("expire_on_commit", "journal", "synchronous", "busy_timeout", "foreign_keys"),
    *("pool.size", "url.", ".", "engine_options.x", "poolsize", "", "connect_args", "default"),
]
VARIABLES = [
    *("DATABASE_URL", "DATABASE_URL_FILE", "DATABASE_PASSWORD", "DATABASE_PASSWORD_FILE"),
    *("DATABASE_POOL_SIZE", "DATABASE_POOLSIZE", "DATABASE_POOL_TIMEOUT", "DATABASE_ECHO"),
    *("DATABASE_REPLICAS", "DATABASE_TLS", "DATABASE_STATEMENT_TIMEOUT", "DATABASE_URI"),
    *("DEFAULT_DATABASE_URL", "ANALYTICS_DATABASE_URL", "ANALYTICS_DATABASE_PASSWORD"),
    *("ANALYTICS_DATABASE_SQLITE_BUSY_TIMEOUT", "A_DATABASE_B_DATABASE_URL", "DATABASE_PORT"),
    *("DATABASE_ENGINE_OPTIONS", "DATABASE_URL_SECRETS", "DATABASE_FACTORY", "DATABASE_"),
    *("1_DATABASE_URL", "_DATABASE_URL", "PATH", "WORDPRESS_DATABASE_HOST"),
]
NAMES = ["default", "analytics", "a1", "Bad", "", "a b"]
WORDS = [
    "true",
    "none",
    "10",
    "0",
    "-1",
    "1e308",
    "nan",
    "ten",
    "require",
    "verify",
    "state",
    "wal",
]
DRIVERS = ["postgresql", "postgres", "postgresql+psycopg", "mysql+pymysql", "mysql", "a+b", "a+b+c"]
RESERVED = ["@", "x@", "x@/", "@/", "/", ":", "x:", "?", "x@a?", "#", "%", "&x=", "[", "]@[", " "]
KINDS = ["", ".", ":", "a.b", "no_such_module:x", "..x", "math:pi", "math:", "x\0:y", "dict"]

profile = settings(
    max_examples=120,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)


def _urls() -> SearchStrategy[str]:
    """Make URLs of servers whose password is, or contains, the canary."""
    junk = st.sampled_from(["", "", "x", *RESERVED]) | st.text("@/:?#%&=[] ax\n\0é", max_size=3)
    ends = st.sampled_from(["db/app", "db:5432/app", "db:x/app", "/app", "", "db/app?sslmode=no"])
    keys = st.sampled_from(["password", "sslpassword", "PASSWORD", "passwd"])
    drivers = st.sampled_from(DRIVERS)
    authority = st.builds("{}://ada:{}{}{}@{}".format, drivers, junk, st.just(CANARY), junk, ends)
    query = st.builds("{}://ada@db/app?{}={}".format, drivers, keys, st.just(CANARY))
    return authority | query


SAFE_URLS = st.sampled_from(
    ["sqlite://", "sqlite:///file.db", "sqlite+json://", "postgresql://ada@db/app", "nonsense"]
)
TEXTS = st.sampled_from(WORDS) | SAFE_URLS | _urls() | st.text(max_size=8)
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.just(-(10**400)) | st.floats() | TEXTS
    | st.binary(max_size=3)
)  # fmt: skip


def _tables(scalars: SearchStrategy[Any], keys: SearchStrategy[Any]) -> SearchStrategy[Any]:
    """Make databases by name, most of them with a URL."""
    values = st.recursive(
        scalars,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
        max_leaves=4,
    )
    free = st.dictionaries(keys, values, max_size=4)
    likely = st.fixed_dictionaries(
        {"url": SAFE_URLS | _urls()},
        optional={
            "password": TEXTS,
            "replicas": st.lists(_urls(), max_size=2),
            "pool": free,
            "session": free,
            "sqlite": free,
            "engine_options": free,
            "statement_timeout": scalars,
            "factory": st.sampled_from(KINDS),
        },
    )
    tables: SearchStrategy[Any] = st.builds(_joined, free, likely) | free | values
    return st.dictionaries(st.sampled_from(NAMES) | keys, tables, max_size=3)


def _joined(one: dict[Any, Any], other: dict[str, Any]) -> dict[Any, Any]:
    return {**one, **other}


KEYS = st.sampled_from(SETTINGS) | st.text(max_size=4)
MAPPINGS = _tables(SCALARS, KEYS | st.none() | st.integers())
TOML_SCALARS = st.booleans() | st.integers() | st.floats() | TEXTS
TOML_TABLES = _tables(TOML_SCALARS, KEYS)
ENVIRONMENTS = st.dictionaries(st.sampled_from(VARIABLES) | st.text(max_size=12), TEXTS, max_size=6)


def _toml(value: Any) -> str:
    """Write a value as TOML."""
    if isinstance(value, dict):
        table = cast("dict[str, object]", value)
        return f"{{{', '.join(f'{_toml(key)} = {_toml(table[key])}' for key in table)}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, cast('list[object]', value)))}]"
    if isinstance(value, str):
        text = value.encode("utf-8", "replace").decode()  # TOML has no lone surrogates
        return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007F")
    return str(value).lower()


def _holds(read: Callable[[], SessionFactoryRegistry]) -> None:
    """Read a configuration, ask for every factory in it, and look for the canary."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", SettingsWarning)
        texts = _texts(read)
    texts += [str(warning.message) for warning in caught]
    assert not [text for text in texts if CANARY in text]
    assert not [warning for warning in caught if warning.category is not SettingsWarning]


def _texts(read: Callable[[], SessionFactoryRegistry]) -> list[str]:
    try:
        registry = read()
    except SettingsError as error:
        event("refused")
        return _told(error)
    event(f"read, with {min(len(registry.names), 2)} databases")
    texts = [repr(registry)]
    with registry:
        for name in (*registry.names, "absent"):
            try:
                factory = registry.get(name)
            except SettingsError as error:
                texts += _told(error)
                continue
            texts.append(repr(factory))
            if isinstance(factory, SqlAlchemySessionFactory):
                texts += [repr(factory.settings), str(factory.settings)]
    return texts


def _told(error: SettingsError) -> list[str]:
    assert error.faults
    return [str(error), repr(error)]


@settings(profile, max_examples=400)
@given(_urls())
def test_any_url_gives_settings_or_one_error(url: str) -> None:
    """A URL with any password, escaped or not, is read or refused, and shows no part of it."""
    _holds(lambda: SessionFactoryRegistry.from_env({"DATABASE_URL": url}))


@profile
@given(MAPPINGS)
def test_any_mapping_gives_settings_or_one_error(mapping: dict[str, object]) -> None:
    """A mapping of any keys and values is read or refused with a ``SettingsError``."""
    _holds(lambda: SessionFactoryRegistry.from_mapping(mapping))


@profile
@given(st.none() | st.integers() | st.text(max_size=3) | st.lists(TEXTS, max_size=2))
def test_anything_else_is_one_error(given: Any) -> None:
    """What is no mapping at all is refused with a ``SettingsError``."""
    _holds(lambda: SessionFactoryRegistry.from_mapping(given))


def _holds_for_file(content: str, environ: dict[str, str] | None) -> None:
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory, "databases.toml")
        file.write_bytes(content.encode("utf-8", "surrogatepass"))
        _holds(lambda: SessionFactoryRegistry.from_toml(file, environ=environ))


@profile
@given(
    TOML_TABLES,
    st.sampled_from(["databases", "tool.sessionfactory.databases", "tool.sessionfactory", "tool"]),
    st.none() | ENVIRONMENTS,
)
def test_any_toml_gives_settings_or_one_error(
    tables: dict[str, object], root: str, environ: dict[str, str] | None
) -> None:
    """A TOML file of any tables, below an environment or not, is read or refused."""
    _holds_for_file(f"{root} = {_toml(tables)}\n", environ)


@profile
@given(
    st.text(max_size=40)
    | st.builds(
        "{} = {}".format,
        st.sampled_from(["databases", "databases.default", "tool", "tool.sessionfactory"]),
        (TOML_SCALARS | st.lists(TOML_SCALARS | st.just({"a": 1}), max_size=2)).map(_toml),
    )
)
def test_any_text_gives_settings_or_one_error(content: str) -> None:
    """A file of any text, TOML or not, is read or refused with a ``SettingsError``."""
    _holds_for_file(content, None)


@profile
@given(ENVIRONMENTS, st.none() | st.lists(st.sampled_from(NAMES), max_size=2))
def test_any_environment_gives_settings_or_one_error(
    environ: dict[str, str], names: list[str] | None
) -> None:
    """An environment of any variables is read or refused, and shows no secret."""
    _holds(lambda: SessionFactoryRegistry.from_env(environ, names=names))
