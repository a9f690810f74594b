"""Values that settings take or refuse, with the word to use instead."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text

from sessionfactory import (
    DatabaseSettings,
    PoolSettings,
    SessionFactoryRegistry,
    SettingsError,
    SqlAlchemySessionFactory,
)

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def loggers() -> Iterator[None]:
    """Leave SQLAlchemy's loggers as they were."""
    names = ("sqlalchemy.engine.Engine", "sqlalchemy.engine", "sqlalchemy")
    before = {name: logging.getLogger(name).level for name in names}
    yield
    for name, level in before.items():
        logging.getLogger(name).setLevel(level)


@pytest.mark.parametrize(
    "url", ["sqlite://", "mssql+pyodbc://db/shop?driver=x", "mysql+pymysql://db/a"]
)
@pytest.mark.parametrize(
    "options",
    [
        {"execution_options": {"schema_translate_map": {None: "tenant7"}}},
        {"connect_args": {"attrs_before": {1256: b"token"}}},
        {"connect_args": {"conv": {10: str}}},
    ],
)
def test_tables_of_options_may_have_any_keys(url: str, options: dict[str, Any]) -> None:
    """Only the names of options are text; what is inside of them is the option's own."""
    assert DatabaseSettings(url, engine_options=options).engine_options == options


@pytest.mark.parametrize("options", [{1: "a"}, {None: {}}])
def test_a_name_of_an_option_is_text(options: dict[Any, Any]) -> None:
    """An option without a name is refused."""
    with pytest.raises(SettingsError, match="engine_options: expected a table of options"):
        DatabaseSettings("sqlite://", engine_options=options)


def test_the_schema_of_a_tenant_reaches_the_statements() -> None:
    """A translated schema from the settings is applied."""
    options = {"execution_options": {"schema_translate_map": {None: "main"}}}
    with SqlAlchemySessionFactory(
        DatabaseSettings("sqlite://", engine_options=options)
    ) as sessions:
        assert sessions.engine.get_execution_options() == options["execution_options"]


@pytest.mark.parametrize("recycle", [-1, "-1", 0])
def test_no_recycling_has_a_word(recycle: Any) -> None:
    """SQLAlchemy's -1 is refused with what means the same here."""
    with pytest.raises(SettingsError, match="for no limit use None, in text 'none'"):
        PoolSettings(recycle=recycle)

    assert PoolSettings(recycle="none").recycle is None  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


@pytest.mark.usefixtures("loggers")
def test_echo_may_show_rows(caplog: pytest.LogCaptureFixture) -> None:
    """`echo="debug"` logs rows as well, from code and from the environment."""
    registry = SessionFactoryRegistry.from_env(
        {"DATABASE_URL": "sqlite://", "DATABASE_ECHO": "Debug"}
    )
    assert registry.settings() == DatabaseSettings("sqlite://", echo="debug")
    with caplog.at_level(logging.DEBUG), registry, registry.get()() as session:
        session.execute(text("SELECT 'a row'")).all()

    assert "Row ('a row',)" in caplog.text


@pytest.mark.parametrize("echo", ["loud", 2, None])
def test_another_echo_is_refused(echo: Any) -> None:
    """Anything else is refused."""
    with pytest.raises(SettingsError, match="echo: expected true or false"):
        DatabaseSettings("sqlite://", echo=echo)
