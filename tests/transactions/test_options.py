"""What may be asked of transactions, what contradicts itself, and what a view costs."""

from __future__ import annotations

import asyncio
import gc
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast
from weakref import ref

import pytest
from sqlalchemy import StaticPool, create_engine, event, text
from sqlalchemy.engine import default
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from sessionfactory import (
    NotConfiguredError,
    NullSessionFactory,
    ReadOnlyError,
    SettingsError,
    run_in_transaction,
    with_options,
)
from sessionfactory.engine.views.options import TransactionOptions
from sessionfactory.engine.views.views import view_of
from sessionfactory.pool import connection_settings
from sessionfactory.testing import check_session_factory

if TYPE_CHECKING:
    from collections.abc import Generator

    from sessionfactory import SqlAlchemySessionFactory

asking = cast("Any", with_options)
sessions = sessionmaker(create_engine("sqlite://"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"isolation_level": "serialisable"}, "isolation_level: expected 'SERIALIZABLE', .* mean"),
        ({"isolation_level": ["SERIALIZABLE"]}, "isolation_level: expected 'SERIALIZABLE', "),
        ({"read_only": "perhaps"}, "read_only: expected true or false, got text"),
        ({"deferrable": 1}, "deferrable: expected true or false, got int"),
        ({"statement_timeout": "soon"}, "statement_timeout: expected a number, got text"),
        ({"lock_timeout": True}, "lock_timeout: expected a number, got bool"),
        ({"lock_timeout": 0}, "lock_timeout: expected 0.001 or more, got 0"),
        ({"statement_timeout": float("nan")}, "statement_timeout: expected a number, got float"),
        ({"schema_translate_map": "other"}, "schema_translate_map: expected a mapping"),
        ({"schema_translate_map": {1: "a"}}, "schema_translate_map: expected names of schemas"),
        ({"local": ["app.tenant"]}, "local: expected a mapping"),
        ({"local": {"app.tenant; DROP": "7"}}, "local: expected names of settings, such as app"),
        ({"local": {7: "7"}}, "local: expected names of settings"),
        ({"local": {"app.tenant": 7}}, "local.app.tenant: expected text$"),
        ({"local": {"app.tenant": "7\0"}}, "local.app.tenant: expected text without .* NUL"),
        ({"local": {"Statement_Timeout": "7"}}, "local.Statement_Timeout: use statement_timeout"),
        ({"local": {"transaction_read_only": "off"}}, "local.transaction_read_only: use read_only"),
    ],
)
def test_what_cannot_be_used(options: dict[str, object], message: str) -> None:
    """Each value that cannot be used is told with its name, when the view is made."""
    with pytest.raises(SettingsError, match=message):
        asking(sessions, **options)


def test_all_faults_at_once() -> None:
    """Everything that is wrong is told at once, and no value of a setting is."""
    with pytest.raises(SettingsError, match="2 faults") as caught:
        asking(sessions, read_only="perhaps", local={"app.secret": b"canary"})
    assert "canary" not in str(caught.value)


def test_options_are_copied() -> None:
    """What happens to a mapping afterwards is no matter of the view."""
    schemas: dict[str | None, str | None] = {None: "main"}
    view = with_options(sessions, schema_translate_map=schemas)
    schemas[None] = "elsewhere"
    with view() as session:
        assert session.get_bind().get_execution_options()["schema_translate_map"] == {None: "main"}


def test_values_are_not_shown() -> None:
    """What stands in settings of a transaction is no business of a log."""
    view = with_options(sessions, local={"app.secret": "canary"})
    assert "canary" not in repr(view)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"isolation_level": "AUTOCOMMIT", "local": {"app.tenant": "7"}}, ["local"]),
        (
            {"isolation_level": "AUTOCOMMIT", "statement_timeout": 1, "lock_timeout": 1},
            ["statement_timeout", "lock_timeout"],
        ),
        ({"deferrable": True}, ["deferrable"]),
        ({"deferrable": True, "isolation_level": "SERIALIZABLE"}, ["deferrable"]),
        ({"deferrable": True, "isolation_level": "AUTOCOMMIT"}, ["deferrable"]),
    ],
)
def test_contradictions(options: dict[str, object], named: list[str]) -> None:
    """Options that cannot be had together are refused when the view is made."""
    with pytest.raises(SettingsError, match=r"AUTOCOMMIT has none|needs isolation_level") as caught:
        asking(sessions, **options)
    assert [fault.path for fault in caught.value.faults] == named


@pytest.mark.parametrize(
    ("first", "second", "named"),
    [
        ({"read_only": True}, {"read_only": False}, "read_only"),
        ({"statement_timeout": 5}, {"statement_timeout": 6}, "statement_timeout"),
        ({"local": {"a.b": "7", "a.c": "1"}}, {"local": {"a.b": "8"}}, "local.a.b"),
        ({"local": {"a.b": "7"}}, {"isolation_level": "AUTOCOMMIT"}, "local"),
        (
            {"isolation_level": "SERIALIZABLE"},
            {"isolation_level": "READ COMMITTED"},
            "isolation_level",
        ),
        (
            {"schema_translate_map": {None: "one"}},
            {"schema_translate_map": {None: "two"}},
            "schema_translate_map.None",
        ),
    ],
)
def test_contradictions_between_views(
    first: dict[str, object], second: dict[str, object], named: str
) -> None:
    """A view cannot take back what the one below it says; to say the same again is no harm."""
    view = asking(asking(sessions, **first), **first)
    with pytest.raises(SettingsError) as caught:
        asking(view, **second)
    assert [fault.path for fault in caught.value.faults] == [named]


def test_contradiction_to_a_reader(factory: SqlAlchemySessionFactory) -> None:
    """A view of a reader cannot write, either."""
    view = with_options(factory.reader, read_only=False)
    with pytest.raises(SettingsError, match="read_only: the sessions that were given say"):
        view().connection()


@pytest.mark.parametrize(
    "given", [None, print, Session(), scoped_session(sessions), create_engine("sqlite://")]
)
def test_what_is_no_factory(given: object) -> None:
    """Something else than a session factory is refused at once."""
    with pytest.raises(TypeError, match="with_options takes a session factory, not "):
        asking(given, read_only=True)


def test_null_factory() -> None:
    """A view of a database that is not configured says what to set."""
    view = with_options(NullSessionFactory("set DATABASE_URL"), read_only=True)
    with pytest.raises(NotConfiguredError, match="set DATABASE_URL"):
        view()
    with pytest.raises(NotConfiguredError, match="set DATABASE_URL"):
        view.begin()


def test_sessions_that_were_used_before(factory: SqlAlchemySessionFactory) -> None:
    """A session whose transaction began without the options is refused, and closed."""

    class Used:
        def __call__(self) -> Session:
            session = factory()
            session.connection()
            return session

        @contextmanager
        def begin(self) -> Generator[Session]:
            with factory.begin() as session:
                session.connection()
                yield session

    view = with_options(Used(), read_only=True)
    with pytest.raises(SettingsError, match="whose transaction has begun without these options"):
        view()
    with (
        pytest.raises(SettingsError, match="whose transaction has begun without these options"),
        view.begin(),
    ):
        pytest.fail("it began")
    with pytest.raises(SettingsError):
        run_in_transaction(view, lambda _: pytest.fail("it began"))
    assert factory.status().in_use == 0


def test_a_session_of_the_async_half_that_was_used_before() -> None:
    """It is refused as well; a caller that shares it goes on with it, and closes it."""

    async def main() -> None:
        engine = create_async_engine("sqlite+aiosqlite://")
        async with AsyncSession(engine) as shared:
            await shared.execute(text("SELECT 1"))

            class Shared:
                begin = async_sessionmaker(engine).begin

                def __call__(self) -> AsyncSession:
                    return shared

            with pytest.raises(SettingsError, match="holds a connection already"):
                with_options(Shared(), read_only=True)()
            assert await shared.scalar(text("SELECT 1")) == 1
        await engine.dispose()

    asyncio.run(main())


def test_bound_sessions_of_several_engines() -> None:
    """Sessions that choose an engine for each statement have views of each."""
    one, two = create_engine("sqlite://"), create_engine("sqlite://")

    class Choosing(Session):
        def get_bind(self, *_: Any, **keywords: Any) -> Any:
            return two if "FROM two" in str(keywords.get("clause")) else one

    view = with_options(sessionmaker(class_=Choosing), read_only=True)
    with view() as session:
        assert session.get_bind() is view_of(one, TransactionOptions(read_only=True))
        session.execute(text("SELECT 1"))
        with pytest.raises(Exception, match="no such table: two"):
            session.execute(text("SELECT 1 FROM two"))
        assert len(session.connection().exec_driver_sql("PRAGMA query_only").all()) == 1
    one.dispose()
    two.dispose()


def test_views_are_kept_and_bounded() -> None:
    """The same options give the same view of an engine; the oldest of very many go."""
    engine = create_engine("sqlite://")
    options = TransactionOptions(schema_translate_map={None: "main"}, read_only=True)
    same = TransactionOptions(schema_translate_map={None: "main"}, read_only=True)
    first = view_of(engine, options)
    assert view_of(engine, same) is first
    for number in range(100):
        view_of(engine, TransactionOptions(schema_translate_map={None: str(number)}))
    assert len(vars(engine)["sessionfactory_views"]) == 64
    assert view_of(engine, options) is not first


def test_listeners_do_not_pile_up() -> None:
    """However many views an engine has, its refusals are translated once, by one listener."""
    engine = create_engine("sqlite://")
    before = len(engine.dialect.dispatch.handle_error)
    for number in range(100):
        view_of(
            engine, TransactionOptions(schema_translate_map={None: str(number)}, read_only=True)
        )
    assert len(engine.dialect.dispatch.handle_error) == before + 1
    assert len(engine.pool.dispatch.reset) == 0


def test_sessions_are_freed_at_once() -> None:
    """A session of a view that is dropped goes, without the help of the garbage collector."""
    view = with_options(sessions, read_only=True, local={"app.tenant": "7"})
    gc.disable()
    try:
        session = view()
        gone = ref(session)
        del session
        assert gone() is None
    finally:
        gc.enable()


def test_other_drivers_of_postgresql() -> None:
    """Where it is not known how, AUTOCOMMIT is not made read-only, and that is said."""
    dialect = default.DefaultDialect()
    dialect.driver = "other"
    with pytest.raises(SettingsError, match="read_only: AUTOCOMMIT cannot be read-only on other"):
        connection_settings.reads_only(dialect)


def test_views_are_session_factories(factory: SqlAlchemySessionFactory) -> None:
    """A view keeps every promise of the interface that its factory keeps."""
    check_session_factory(lambda: with_options(factory, isolation_level="SERIALIZABLE"))


def test_engine_in_the_place_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLAlchemy may take a new engine for one that is gone, of the same ``id``; views do not."""

    def contains(*_: object) -> bool:
        return True

    monkeypatch.setattr(event, "contains", contains)
    engine = create_engine("sqlite://", poolclass=StaticPool)
    with with_options(sessionmaker(engine), read_only=True)() as session:
        with pytest.raises(ReadOnlyError):
            session.execute(text("CREATE TABLE a (b INTEGER)"))
        session.rollback()
    with sessionmaker(engine).begin() as session:
        session.execute(text("CREATE TABLE a (b INTEGER)"))
    engine.dispose()
