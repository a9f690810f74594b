"""The plugin's registry and its sync factory: what they give, and what is undone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.inner_pytest import inner

if TYPE_CHECKING:
    from tests.support.inner_pytest import InnerPytest

__all__ = ["inner"]

ADDS_TWICE = """
@pytest.mark.parametrize("turn", [1, 2])
def test_adds(session_factory, turn):
    add(session_factory)
    assert count(session_factory) == 1
"""


def test_what_a_test_commits_is_undone(inner: InnerPytest) -> None:
    """Two tests commit a row each; each sees its own only, and the database stays empty."""
    inner.tests(ADDS_TWICE)

    inner.passes(passed=2)

    assert inner.rows() == 0


def test_the_registry_gives_the_same_factory(inner: InnerPytest) -> None:
    """Code that asks the registry, for a reader too, is inside the transaction of the test."""
    inner.tests("""
def test_asks(session_factory, session_registry):
    add(session_registry.get())
    assert session_registry.get() is session_factory
    assert count(session_registry.reader()) == 1

def test_after(session_registry):
    assert count(session_registry.get()) == 0
    """)

    inner.passes(passed=2)


def test_isolation_does_not_depend_on_the_order_of_fixtures(inner: InnerPytest) -> None:
    """A service made from the registry to the left of ``session_factory`` is isolated as well."""
    inner.tests("""
@pytest.fixture
def service(session_registry):
    return session_registry.get()

@pytest.mark.usefixtures("service")
def test_service(service, session_factory):
    assert service is session_factory
    """)

    inner.passes(passed=1)


def test_a_factory_that_is_asked_for_late_is_isolated(inner: InnerPytest) -> None:
    """``getfixturevalue`` in the middle of a test gives the view that rolls back."""
    inner.tests("""
def test_late(request):
    add(request.getfixturevalue("session_factory"))
    """)

    inner.passes(passed=1)

    assert inner.rows() == 0


def test_a_failed_test_is_undone(inner: InnerPytest) -> None:
    """The rows of a test that fails between two commits are not there for the next one."""
    inner.tests("""
def test_fails(session_factory):
    add(session_factory)
    assert False

def test_next(session_factory):
    assert count(session_factory) == 0
    """)

    inner.run().assert_outcomes(passed=1, failed=1)


def test_isolation_can_be_turned_off(inner: InnerPytest) -> None:
    """Without isolation a test's commits stay, and the factory is the real one."""
    inner.ini("sessionfactory_isolation = none")
    inner.tests("""
def test_adds(session_factory):
    assert "SqlAlchemySessionFactory" in repr(session_factory)
    add(session_factory)
    """)

    inner.passes(passed=1)

    assert inner.rows() == 1


def test_an_unknown_isolation_is_told(inner: InnerPytest) -> None:
    """A slip in the ini file ends the run before the first test, with what was expected."""
    inner.ini("sessionfactory_isolation = rolback")

    run = inner.run()

    assert run.ret == pytest.ExitCode.USAGE_ERROR
    message = "ERROR: sessionfactory_isolation: expected 'rollback' or 'none', got 'rolback'"
    run.stderr.fnmatch_lines([message])


def test_the_marker_picks_a_database(inner: InnerPytest) -> None:
    """A marked test gets the factory of the database that it names, isolated."""
    inner.tests("""
@pytest.mark.database("analytics")
def test_analytics(session_factory, session_registry):
    add(session_factory)
    assert session_registry.get("analytics") is session_factory
    assert count(session_registry.get()) == 0
    """)

    inner.passes(
        "--sessionfactory-url",
        "sqlite:///app.db",
        "--sessionfactory-url=analytics=sqlite:///a.db",
        passed=1,
    )

    assert inner.rows("a.db") == 0


def test_the_marker_isolates_every_database_that_it_names(inner: InnerPytest) -> None:
    """A test of two databases names both; its factory is the first, and both are undone."""
    inner.tests("""
@pytest.mark.database("default", "analytics")
def test_both(session_factory, session_registry):
    add(session_factory)
    add(session_registry.get("analytics"))
    assert session_factory is session_registry.get("default")
    """)

    inner.passes(
        "--sessionfactory-url",
        "sqlite:///app.db",
        "--sessionfactory-url=analytics=sqlite:///a.db",
        passed=1,
    )

    assert (inner.rows(), inner.rows("a.db")) == (0, 0)


@pytest.mark.parametrize("arguments", ["5", "name='analytics'"])
def test_a_marker_with_wrong_arguments_is_told(inner: InnerPytest, arguments: str) -> None:
    """The marker takes names, and says so in one line."""
    inner.tests(f"""
@pytest.mark.database({arguments})
def test_marked(session_factory):
    pass
    """)

    run = inner.run()

    run.assert_outcomes(errors=1)
    run.stdout.fnmatch_lines(
        ["the marker takes names of databases: @pytest.mark.database('analytics')"]
    )


def test_the_marker_is_registered(inner: InnerPytest) -> None:
    """``pytest --markers`` explains it, and ``--strict-markers`` lets it pass."""
    inner.run("--markers").stdout.fnmatch_lines(["@pytest.mark.database(*names): *"])


def test_the_registry_is_closed_at_the_end(inner: InnerPytest) -> None:
    """What the registry built is closed when the run ends."""
    inner.tests("""
import pathlib

@pytest.fixture(scope="session", autouse=True)
def looks_afterwards():
    kept = []
    yield kept
    pathlib.Path("closed").write_text(kept[0].ping(names=["default"])["default"].state)

def test_asks(session_registry, looks_afterwards):
    looks_afterwards.append(session_registry)
    assert count(session_registry.get()) == 0
    """)

    inner.passes(passed=1)

    assert (inner.folder / "closed").read_text() == "closed"


def test_a_conftest_overrides_the_factory(inner: InnerPytest) -> None:
    """A user's own ``session_factory`` is used, and may ask for the plugin's."""
    inner.tests("""
@pytest.fixture
def session_factory(session_factory):
    add(session_factory)
    return session_factory

def test_seeded(session_factory):
    assert count(session_factory) == 1
    """)

    inner.passes(passed=1)

    assert inner.rows() == 0


def test_a_conftest_overrides_the_registry(inner: InnerPytest) -> None:
    """A user's own registry, made without the plugin's, is what the factory comes from."""
    inner.tests("""
from sessionfactory import DatabaseSettings, SessionFactoryRegistry

@pytest.fixture(scope="session")
def session_registry():
    with SessionFactoryRegistry({"default": DatabaseSettings("sqlite:///own.db")}) as registry:
        with registry.engine().begin() as connection:
            connection.exec_driver_sql("CREATE TABLE item (name TEXT)")
        yield registry

def test_own(session_factory, session_registry):
    add(session_factory)
    assert count(session_registry.get()) == 1
    """)

    inner.passes(passed=1)

    assert inner.rows("own.db") == 0


@pytest.mark.parametrize("gave", ["None", "dict"])
def test_an_override_of_the_registry_that_is_none_is_told(inner: InnerPytest, gave: str) -> None:
    """A fixture that forgot to return the registry, or gives something else, is named."""
    inner.tests(f"""
@pytest.fixture(scope="session")
def session_registry(session_registry):
    return {"None" if gave == "None" else "{}"}

def test_adds(session_factory): add(session_factory)
    """)

    run = inner.run()

    run.assert_outcomes(errors=1)
    name = "NoneType" if gave == "None" else "dict"
    run.stdout.fnmatch_lines([f"*TypeError: The fixture session_registry is overridden*{name}: *"])


def test_the_fixtures_are_explained(inner: InnerPytest) -> None:
    """``pytest --fixtures`` lists the fixtures with a sentence each, and nothing else."""
    run = inner.run("--fixtures")

    ours = [line for line in run.outlines if "sessionfactory/pytest_plugin.py" in line]
    names = {line.split()[0] for line in ours}
    expected = {"session_registry", "session_factory", "module_session_factory"}
    asynchronous = {f"async_{name}" for name in expected}
    assert names == expected | asynchronous | {"max_queries"}
    assert run.outlines.count("    no docstring available") == 1  # of the user's own fixture
