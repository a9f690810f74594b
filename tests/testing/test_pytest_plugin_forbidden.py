"""The plugin forbids the database to tests that are not marked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.inner_pytest import ASYNCIO, inner

if TYPE_CHECKING:
    from tests.support.inner_pytest import InnerPytest

__all__ = ["inner"]

MESSAGE = (
    "*NotConfiguredError: test_inner.py::test_unmarked uses the database, which is forbidden to"
    " tests without the marker: add @pytest.mark.database to the test, or give it a fake"
)


@pytest.mark.parametrize(
    "body",
    [
        "session_factory()",
        "session_factory.begin()",
        "session_registry.get()()",
        "session_registry.reader().begin()",
        "session_registry.engine()",
        "session_registry.get('analytics').begin()",
        "service.begin()",
        "request.getfixturevalue('session_factory').begin()",
    ],
)
def test_an_unmarked_test_is_told_what_to_add(inner: InnerPytest, body: str) -> None:
    """Whichever way it asks, the error names the test and the marker."""
    (name,) = {name for name in ("session_factory", "session_registry", "service", "request")
               if body.startswith(name)}  # fmt: skip
    inner.tests(f"""
@pytest.fixture
def service(session_registry):
    return session_registry.get()

def test_unmarked({name}):
    {body}
    """)

    run = inner.run(
        "--sessionfactory-forbid-database",
        "--sessionfactory-url=sqlite://",
        "--sessionfactory-url=analytics=sqlite://",
    )

    run.assert_outcomes(failed=1)
    run.stdout.fnmatch_lines([MESSAGE])


def test_the_ini_file_forbids_too(inner: InnerPytest) -> None:
    """A project that wants the rule always writes it into its ini file."""
    inner.ini("sessionfactory_forbid_database = true")
    inner.tests("""
def test_unmarked(session_factory):
    add(session_factory)
    """)

    run = inner.run()

    run.assert_outcomes(failed=1)
    run.stdout.fnmatch_lines([MESSAGE])


def test_marked_tests_are_allowed(inner: InnerPytest) -> None:
    """Tests with the marker, their own or their module's class's, run as ever."""
    inner.tests("""
@pytest.mark.database
def test_marked(session_factory):
    add(session_factory)

@pytest.mark.database
class TestMarked:
    def test_in_it(self, session_registry):
        assert count(session_registry.get()) == 0

def test_without():
    pass
    """)

    inner.passes("--sessionfactory-forbid-database", passed=3)


def test_a_ban_ends_with_its_test(inner: InnerPytest) -> None:
    """A marked test that follows an unmarked one has the database again."""
    inner.tests("""
def test_unmarked(session_registry):
    with pytest.raises(NotConfiguredError):
        add(session_registry.get())

@pytest.mark.database
def test_marked(session_registry):
    add(session_registry.get())
    """)

    inner.passes("--sessionfactory-forbid-database", passed=2)

    assert inner.rows() == 1


def test_fixtures_of_the_whole_run_are_allowed(inner: InnerPytest) -> None:
    """What a session's fixture prepares is not the business of the test that came first."""
    inner.tests("""
@pytest.fixture(scope="session")
def seeded(session_registry):
    add(session_registry.get())

def test_unmarked(seeded, session_factory):
    with pytest.raises(NotConfiguredError):
        add(session_factory)
    """)

    inner.passes("--sessionfactory-forbid-database", passed=1)

    assert inner.rows() == 1


def test_a_test_without_the_database_needs_no_configuration(
    inner: InnerPytest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forbidding reads no configuration for tests that ask for nothing."""
    monkeypatch.setenv("DATABASE_URL", "no url")
    inner.tests("def test_without(): pass")

    inner.passes("--sessionfactory-forbid-database", passed=1)


def test_the_async_factory_is_forbidden_too(inner: InnerPytest) -> None:
    """The async factory of an unmarked test raises the same error, before anything is awaited."""
    inner.ini("asyncio_default_fixture_loop_scope = function")
    inner.tests("""
@pytest.mark.asyncio
async def test_unmarked(async_session_factory):
    async with async_session_factory.begin():
        pass
    """)

    run = inner.run("--sessionfactory-forbid-database", *ASYNCIO)

    run.assert_outcomes(failed=1)
    run.stdout.fnmatch_lines([MESSAGE])
