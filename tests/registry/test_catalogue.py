"""Which factory a name means: looked up, built once, registered, overridden."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session, sessionmaker

from sessionfactory import (
    ClosedError,
    DatabaseSettings,
    NotConfiguredError,
    NullSessionFactory,
    ReadOnlyError,
    SessionFactoryRegistry,
    SettingsError,
    SqlAlchemySessionFactory,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sessionfactory import SessionFactory

THREADS = 8


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[SessionFactoryRegistry]:
    """Two databases in files that are not there yet."""
    databases = {
        "default": DatabaseSettings(f"sqlite:///{tmp_path}/default.db"),
        "analytics": DatabaseSettings(f"sqlite:///{tmp_path}/analytics.db"),
    }
    with SessionFactoryRegistry(databases) as registry:
        yield registry


@pytest.fixture
def stand_in() -> sessionmaker[Session]:
    """A factory that has the two methods, and nothing else."""
    return sessionmaker()


def test_nothing_is_built_until_it_is_asked_for(
    registry: SessionFactoryRegistry, tmp_path: Path
) -> None:
    """Neither the registry nor a look-up opens a database; the first session does."""
    factory: Any = registry.get()
    assert not factory._managed.built
    assert registry.status(names=()) == {}
    assert list(tmp_path.iterdir()) == []

    with factory.begin() as session:
        session.execute(text("CREATE TABLE t (x INTEGER)"))

    assert (tmp_path / "default.db").exists()
    assert not (tmp_path / "analytics.db").exists()


def test_a_database_that_cannot_be_built_harms_no_other(tmp_path: Path) -> None:
    """A driver that does not exist is a fault of its own database, when that is asked for."""
    with SessionFactoryRegistry(
        {
            "default": DatabaseSettings("sqlite://"),
            "broken": DatabaseSettings("nosuch://host/name"),
        }
    ) as registry:
        with registry.get().begin() as session:
            assert session.execute(text("SELECT 1")).scalar_one() == 1
        with pytest.raises(SettingsError, match=r"broken\.url.*there is no driver 'nosuch'"):
            registry.get("broken")


def test_a_name_means_the_same_factory_each_time(registry: SessionFactoryRegistry) -> None:
    """Two look-ups of a name give one factory; two names give two."""
    assert registry.get() is registry.get("default")
    assert registry.get("analytics") is registry.get("analytics")
    assert registry.get() is not registry.get("analytics")


def test_a_factory_knows_its_name(registry: SessionFactoryRegistry) -> None:
    """A factory's messages call it what the registry calls it."""
    factory: Any = registry.get("analytics")

    assert factory.name == "analytics"


def test_threads_that_race_get_the_same_factory(registry: SessionFactoryRegistry) -> None:
    """Eight threads that ask at once for the first time get one factory and one engine."""
    barrier = threading.Barrier(THREADS)

    def ask(_: int) -> tuple[object, object]:
        barrier.wait(timeout=30)
        return registry.get(), registry.engine()

    with ThreadPoolExecutor(THREADS) as threads:
        answers = list(threads.map(ask, range(THREADS)))

    assert len({id(factory) for factory, _ in answers}) == 1
    assert len({id(engine) for _, engine in answers}) == 1


def test_the_engine_is_the_factory_s(registry: SessionFactoryRegistry) -> None:
    """`engine` gives what Alembic and `create_all` want: the engine of the factory."""
    factory: Any = registry.get()

    assert registry.engine() is factory.engine


def test_a_reader_cannot_write(registry: SessionFactoryRegistry) -> None:
    """`reader` gives a factory whose transactions the database keeps from writing."""
    with registry.get().begin() as session:
        session.execute(text("CREATE TABLE t (x INTEGER)"))

    with registry.reader().begin() as session:
        assert session.execute(text("SELECT count(*) FROM t")).scalar_one() == 0
        with pytest.raises(ReadOnlyError):
            session.execute(text("INSERT INTO t VALUES (1)"))


def test_a_missing_name_gives_the_null_factory(registry: SessionFactoryRegistry) -> None:
    """A name without settings is no error until it is used; the message names a near name."""
    missing = registry.get("analytic")

    assert isinstance(missing, NullSessionFactory)
    assert missing.reason == (
        "Database 'analytic' is not configured: add 'analytic' to the mapping of databases;"
        " did you mean 'analytics'?"
    )
    with pytest.raises(NotConfiguredError, match="did you mean 'analytics'"):
        missing.begin()


def test_a_missing_name_has_no_reader_either(registry: SessionFactoryRegistry) -> None:
    """The reader of a missing database is a null factory with the same reason."""
    reader = registry.reader("elsewhere")

    assert isinstance(reader, NullSessionFactory)
    assert "'elsewhere'" in reader.reason
    assert "did you mean" not in reader.reason


def test_a_missing_name_has_no_engine(registry: SessionFactoryRegistry) -> None:
    """There is no null engine: asking for the engine of a missing database raises at once."""
    with pytest.raises(NotConfiguredError, match="'elsewhere' is not configured"):
        registry.engine("elsewhere")


def test_names_are_those_configured_and_registered(
    registry: SessionFactoryRegistry, stand_in: SessionFactory
) -> None:
    """`names` lists what can be had, sorted; what is only overridden is not there."""
    registry.register("elsewhere", stand_in)

    with registry.override("missing", stand_in):
        assert registry.names == ("analytics", "default", "elsewhere")


def test_a_registered_factory_is_given_as_it_is(
    registry: SessionFactoryRegistry, stand_in: SessionFactory
) -> None:
    """A factory made elsewhere is found under its name, also as a near name."""
    registry.register("elsewhere", stand_in)

    assert registry.get("elsewhere") is stand_in
    with pytest.raises(NotConfiguredError, match="did you mean 'elsewhere'"):
        registry.get("elsewere")()


def test_a_registered_factory_need_not_have_more_than_the_interface(
    registry: SessionFactoryRegistry, stand_in: SessionFactory
) -> None:
    """A plain `sessionmaker` has neither reader nor engine, and a sentence says so."""
    registry.register("elsewhere", stand_in)

    with pytest.raises(NotConfiguredError, match="registered as 'elsewhere' has no reader"):
        registry.reader("elsewhere")
    with pytest.raises(NotConfiguredError, match="given as 'elsewhere' has no engine"):
        registry.engine("elsewhere")


@pytest.mark.parametrize("taken", ["default", "elsewhere"])
def test_a_taken_name_is_refused(
    registry: SessionFactoryRegistry, stand_in: SessionFactory, taken: str
) -> None:
    """`register` replaces nothing silently, neither a configured nor a registered factory."""
    registry.register("elsewhere", stand_in)
    before = registry.get(taken)

    with pytest.raises(ValueError, match=f"There is a database '{taken}' already"):
        registry.register(taken, NullSessionFactory("another"))

    assert registry.get(taken) is before


def test_a_registered_factory_is_never_closed_by_the_registry() -> None:
    """A factory is closed by the code that made it."""
    with SqlAlchemySessionFactory(DatabaseSettings("sqlite://")) as factory:
        with SessionFactoryRegistry() as registry:
            registry.register("default", factory)
            assert registry.engine() is factory.engine

        with factory.begin() as session:
            assert session.execute(text("SELECT 1")).scalar_one() == 1


def test_an_override_replaces_the_factory_and_its_reader(
    registry: SessionFactoryRegistry, stand_in: SessionFactory
) -> None:
    """In the block every look-up gives the replacement; after it, the real one again."""
    real = registry.get()

    with registry.override("default", stand_in):
        assert registry.get() is stand_in
        assert registry.reader() is stand_in
        assert registry.get("analytics") is not stand_in
    assert registry.get() is real


def test_an_override_may_have_a_reader(
    registry: SessionFactoryRegistry, stand_in: SessionFactory
) -> None:
    """A reader that is given is what `reader` returns in the block."""
    reader = NullSessionFactory("no reading in this test")

    with registry.override("default", stand_in, reader=reader):
        assert registry.reader() is reader
        assert registry.get() is stand_in


def test_an_override_has_its_own_engine(registry: SessionFactoryRegistry) -> None:
    """`engine` gives the replacement's engine, and never the real one."""
    with (
        SqlAlchemySessionFactory(DatabaseSettings("sqlite://")) as replacement,
        registry.override("default", replacement),
    ):
        assert registry.engine() is replacement.engine


def test_an_override_without_an_engine_hides_the_real_one(
    registry: SessionFactoryRegistry, stand_in: SessionFactory
) -> None:
    """A replacement without an engine gives an error, for the real engine is not to be touched."""
    with (
        registry.override("default", stand_in),
        pytest.raises(NotConfiguredError, match="given as 'default' has no engine"),
    ):
        registry.engine()


def test_an_override_never_builds_the_real_factory(stand_in: SessionFactory) -> None:
    """A database that could not even be built can be overridden."""
    registry = SessionFactoryRegistry({"default": DatabaseSettings("nosuch://host/name")})

    with registry.override("default", stand_in):
        assert registry.get() is stand_in
        assert registry.reader() is stand_in
    with pytest.raises(SettingsError, match="nosuch"):
        registry.get()


def test_a_missing_database_can_be_overridden(
    registry: SessionFactoryRegistry, stand_in: SessionFactory
) -> None:
    """A test needs no settings for the database that it replaces."""
    with registry.override("elsewhere", stand_in):
        assert registry.get("elsewhere") is stand_in
        assert registry.reader("elsewhere") is stand_in
    assert isinstance(registry.get("elsewhere"), NullSessionFactory)


def test_overrides_nest(registry: SessionFactoryRegistry, stand_in: SessionFactory) -> None:
    """The innermost replacement counts, and each block restores what was before it."""
    inner = NullSessionFactory("the inner one")

    with registry.override("default", stand_in):
        with registry.override("default", inner):
            assert registry.get() is inner
            assert registry.reader() is inner
        assert registry.get() is stand_in
        assert registry.reader() is stand_in


def test_an_override_ends_with_an_exception(
    registry: SessionFactoryRegistry, stand_in: SessionFactory
) -> None:
    """A failing test leaves no replacement behind."""
    real = registry.get()

    with pytest.raises(KeyError), registry.override("default", stand_in):
        raise KeyError

    assert registry.get() is real


def test_every_look_up_in_a_closed_registry_is_refused(tmp_path: Path) -> None:
    """After `close`, neither a known nor a missing name gives anything, and the message says so."""
    registry = SessionFactoryRegistry({"default": DatabaseSettings("sqlite://")})
    registry.close()

    for look_up in (registry.get, registry.reader, registry.engine):
        with pytest.raises(ClosedError, match=r"The registry is closed; .* 'default'"):
            look_up("default")
    with pytest.raises(ClosedError, match="'elsewhere'"):
        registry.get("elsewhere")
