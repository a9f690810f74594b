"""Fixtures of a module: their rows are there for each test, a test's own are undone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.inner_pytest import ANYIO, ASYNCIO, inner

if TYPE_CHECKING:
    from sessionfactory.testing import PostgresServer
    from tests.support.inner_pytest import InnerPytest

__all__ = ["inner"]

MODULE = """
@pytest.fixture(scope="module")
def shop(module_session_factory):
    add(module_session_factory)

@pytest.mark.parametrize("turn", [1, 2])
def test_adds(shop, session_factory, turn):
    assert count(session_factory) == 1
    add(session_factory)
    assert count(session_factory) == 2

def test_registry(shop, session_registry):
    add(session_registry.get())

def test_module_factory(shop, module_session_factory, session_factory):
    assert module_session_factory is session_factory
    assert count(module_session_factory) == 1

def test_direct(module_session_factory):
    add(module_session_factory)

def test_without_the_fixture(session_registry):
    assert count(session_registry.get()) == 1
    add(session_registry.get())

def test_last(session_factory):
    assert count(session_factory) == 1
"""
ASYNC_MODULE = """
import asyncio
import pytest_asyncio

async def add_async(sessions):
    async with sessions.begin() as session:
        await session.execute(text("INSERT INTO item VALUES ('new')"))

async def count_async(sessions):
    async with sessions() as session:
        return await session.scalar(text("SELECT count(*) FROM item"))

@pytest.fixture(scope="session", autouse=True)
def tables(session_registry):
    pass

@FIXTURE
async def shop(async_module_session_factory):
    await add_async(async_module_session_factory)

@pytest.mark.parametrize("turn", [1, 2])
async def test_adds(shop, async_session_factory, turn):
    assert await count_async(async_session_factory) == 1
    await add_async(async_session_factory)
    assert await count_async(async_session_factory) == 2

@pytest.mark.parametrize("turn", [1, 2])
async def test_direct(shop, async_module_session_factory, turn):
    assert await count_async(async_module_session_factory) == 1
    await add_async(async_module_session_factory)
"""
ON_ASYNCIO = ASYNC_MODULE.replace(
    "FIXTURE", "pytest_asyncio.fixture(scope='module', loop_scope='module')"
)
IN_MODULE_LOOP = "\npytestmark = pytest.mark.asyncio(loop_scope='module')\n"
ON_ANYIO = ASYNC_MODULE.replace("FIXTURE", "pytest.fixture(scope='module')")


@pytest.fixture
def asyncio(inner: InnerPytest) -> InnerPytest:
    """Tests of a user of pytest-asyncio."""
    inner.ini("asyncio_default_fixture_loop_scope = function")
    return inner


def test_rows_of_a_module_are_there_for_each_of_its_tests(inner: InnerPytest) -> None:
    """Each test starts from the fixture's row, whichever way it reaches the database."""
    inner.tests(MODULE)

    inner.passes(passed=7)

    assert inner.rows() == 0


def test_rows_of_a_module_on_a_server(inner: InnerPytest, postgres_server: PostgresServer) -> None:
    """The same on PostgreSQL; at the module's end nothing is left."""
    inner.tests(MODULE)

    inner.passes("--sessionfactory-url", postgres_server.url, passed=7)

    assert postgres_server.execute("SELECT count(*) FROM item") == "0"
    postgres_server.execute("DROP TABLE item")


def test_the_next_module_starts_anew(inner: InnerPytest) -> None:
    """Rows of one module's fixture are not there for the tests of another."""
    inner.tests(MODULE)
    (inner.folder / "test_next.py").write_text("""
from test_inner import count

def test_empty(session_factory):
    assert count(session_factory) == 0
""")

    inner.passes(passed=8)


def test_a_view_of_a_user_gets_savepoints_too(inner: InnerPytest) -> None:
    """A fixture of any scope may put a rollback fake into the registry."""
    inner.tests("""
from sessionfactory.testing import RollbackSessionFactory

@pytest.fixture(scope="session", autouse=True)
def shop(session_registry):
    with RollbackSessionFactory(session_registry.get()) as view:
        with session_registry.override("default", view):
            add(view)
            yield

@pytest.mark.parametrize("turn", [1, 2])
def test_adds(session_factory, turn):
    add(session_factory)
    assert count(session_factory) == 2
""")

    inner.passes(passed=2)

    assert inner.rows() == 0


def test_a_module_factory_without_isolation_is_the_real_one(inner: InnerPytest) -> None:
    """Where nothing is rolled back, what a fixture of a module commits stays."""
    inner.ini("sessionfactory_isolation = none")
    inner.tests("""
def test_adds(module_session_factory):
    add(module_session_factory)
""")

    inner.passes(passed=1)

    assert inner.rows() == 1


def test_a_forbidden_module_is_named(inner: InnerPytest) -> None:
    """The error of a fixture without the marker says where the marker goes."""
    inner.ini("sessionfactory_forbid_database = true")
    inner.tests("""
def test_refused(module_session_factory):
    with pytest.raises(NotConfiguredError, match="pytestmark = pytest.mark.database to the test f"):
        count(module_session_factory)
""")

    inner.passes(passed=1)


def test_async_rows_of_a_module(asyncio: InnerPytest) -> None:
    """With pytest-asyncio, tests in the module's loop share the rows of its fixture."""
    asyncio.tests(ON_ASYNCIO + IN_MODULE_LOOP)

    asyncio.passes(*ASYNCIO, passed=4)

    assert asyncio.rows() == 0


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_async_rows_of_a_module_on_a_server(
    asyncio: InnerPytest, postgres_server: PostgresServer, driver: str
) -> None:
    """The same on PostgreSQL, with both of its async drivers."""
    (asyncio.folder / "conftest.py").unlink()  # it makes the table through a synchronous driver
    asyncio.tests(ON_ASYNCIO + IN_MODULE_LOOP)
    postgres_server.execute("CREATE TABLE item (name TEXT)")
    try:
        url = postgres_server.url_for(driver)
        asyncio.passes(*ASYNCIO, "--sessionfactory-url", url, passed=4)

        assert postgres_server.execute("SELECT count(*) FROM item") == "0"
    finally:
        postgres_server.execute("DROP TABLE item")


def test_async_rows_of_a_module_under_anyio(inner: InnerPytest) -> None:
    """Anyio's plugin runs the tests of a module in one loop, so that it needs no option."""
    inner.tests(
        ON_ANYIO.replace("import pytest_asyncio", "")
        + """
pytestmark = pytest.mark.anyio

@pytest.fixture(scope="session")
def anyio_backend():
    return "asyncio"
"""
    )

    inner.passes(*ANYIO, passed=4)

    assert inner.rows() == 0


def test_a_test_in_a_loop_of_its_own_is_told(asyncio: InnerPytest) -> None:
    """Connections cannot be used in another loop: the error says what to write."""
    asyncio.tests(ON_ASYNCIO.replace("async def test", "@pytest.mark.asyncio\nasync def test", 1))

    run = asyncio.run(*ASYNCIO, "-k", "test_adds")

    run.assert_outcomes(errors=2)
    run.stdout.fnmatch_lines(["*pytestmark = pytest.mark.asyncio(loop_scope='module')*"])
