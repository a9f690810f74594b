"""The plugin's async factory, under pytest-asyncio and under anyio's plugin."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.inner_pytest import ANYIO, ASYNCIO, inner

if TYPE_CHECKING:
    from sessionfactory.testing import PostgresServer
    from tests.support.inner_pytest import InnerPytest

__all__ = ["inner"]

BOTH = (*ASYNCIO, *ANYIO)
ADD = """
async def add_async(sessions):
    async with sessions.begin() as session:
        await session.execute(text("INSERT INTO item VALUES ('new')"))

async def count_async(sessions):
    async with sessions() as session:
        return await session.scalar(text("SELECT count(*) FROM item"))

@pytest.fixture(scope="session", autouse=True)
def tables(session_registry):
    pass
"""
BACKEND = """
@pytest.fixture(scope="session")
def anyio_backend():
    return "asyncio"
"""
ADDS_TWICE = """
@pytest.mark.parametrize("turn", [1, 2])
async def test_adds(async_session_factory, turn):
    await add_async(async_session_factory)
    assert await count_async(async_session_factory) == 1
"""


@pytest.fixture
def asyncio(inner: InnerPytest) -> InnerPytest:
    """Tests of a user of pytest-asyncio."""
    inner.ini("asyncio_default_fixture_loop_scope = function")
    return inner


def test_asyncio_in_strict_mode(asyncio: InnerPytest) -> None:
    """With pytest-asyncio's default mode, what a marked test commits is undone."""
    asyncio.tests(ADD + "\n@pytest.mark.asyncio" + ADDS_TWICE)

    asyncio.passes(*ASYNCIO, passed=2)

    assert asyncio.rows() == 0


def test_asyncio_in_auto_mode(asyncio: InnerPytest) -> None:
    """In auto mode the tests need no marker."""
    asyncio.ini("asyncio_mode = auto")
    asyncio.tests(ADD + ADDS_TWICE)

    asyncio.passes(*ASYNCIO, passed=2)

    assert asyncio.rows() == 0


@pytest.mark.parametrize("scope", ["class", "module", "package", "session"])
def test_asyncio_in_a_longer_loop(asyncio: InnerPytest, scope: str) -> None:
    """The engine lives in the loop that the test's marker picks."""
    asyncio.tests(f"""{ADD}
import asyncio
loops = set()

@pytest.mark.asyncio(loop_scope="{scope}")
class TestLoop:
    @pytest.mark.parametrize("turn", [1, 2])
    async def test_adds(self, async_session_factory, turn):
        loops.add(asyncio.get_running_loop())
        await add_async(async_session_factory)
        assert await count_async(async_session_factory) == len(loops) == 1
    """)

    asyncio.passes(*ASYNCIO, passed=2)

    assert asyncio.rows() == 0


def test_asyncio_with_a_longer_loop_by_default(asyncio: InnerPytest) -> None:
    """The ini file's loop for tests is honoured, too."""
    asyncio.ini("asyncio_default_test_loop_scope = session")
    asyncio.tests(ADD + "\n@pytest.mark.asyncio" + ADDS_TWICE)

    asyncio.passes(*ASYNCIO, passed=2)


def test_asyncio_fixtures_may_use_it(asyncio: InnerPytest) -> None:
    """An async fixture of the user's seeds through the same factory, and reads it at its end."""
    asyncio.tests(f"""{ADD}
import pytest_asyncio

@pytest_asyncio.fixture
async def seeded(async_session_factory):
    await add_async(async_session_factory)
    yield
    assert await count_async(async_session_factory) == 2

@pytest.mark.asyncio
async def test_adds(seeded, async_session_factory):
    await add_async(async_session_factory)
    """)

    asyncio.passes(*ASYNCIO, passed=1)

    assert asyncio.rows() == 0


def test_a_sync_test_may_hand_it_on(asyncio: InnerPytest) -> None:
    """A sync test under pytest-asyncio gets a factory, to give to what it builds."""
    asyncio.tests("""
def test_builds(async_session_factory):
    assert callable(async_session_factory.begin)
    """)

    asyncio.passes(*ASYNCIO, passed=1)


def test_anyio(inner: InnerPytest) -> None:
    """With anyio's plugin alone, what a marked test commits is undone."""
    inner.tests(ADD + BACKEND + "\n@pytest.mark.anyio" + ADDS_TWICE)

    inner.passes(*ANYIO, passed=2)

    assert inner.rows() == 0


def test_anyio_fixtures_may_use_it(inner: InnerPytest) -> None:
    """An async fixture under anyio seeds through the same factory, and reads it at its end."""
    inner.tests(f"""{ADD}{BACKEND}
@pytest.fixture
async def seeded(async_session_factory):
    await add_async(async_session_factory)
    yield
    assert await count_async(async_session_factory) == 2

@pytest.mark.anyio
async def test_adds(seeded, async_session_factory):
    await add_async(async_session_factory)
    """)

    inner.passes(*ANYIO, passed=1)

    assert inner.rows() == 0


def test_anyio_beside_asyncio(asyncio: InnerPytest) -> None:
    """With both plugins installed, each test's factory lives in the loop of its own plugin."""
    asyncio.tests(f"""{ADD}{BACKEND}
@pytest.mark.anyio
async def test_anyio(async_session_factory):
    await add_async(async_session_factory)

@pytest.mark.asyncio
async def test_asyncio(async_session_factory):
    await add_async(async_session_factory)
    assert await count_async(async_session_factory) == 1
    """)

    asyncio.passes(*BOTH, passed=2)

    assert asyncio.rows() == 0


def test_anyio_on_trio_is_told(inner: InnerPytest) -> None:
    """A test on another loop than asyncio's fails with what to override."""
    inner.tests("""
@pytest.fixture
def anyio_backend():
    return "trio"

@pytest.mark.anyio
async def test_adds(async_session_factory):
    pass
    """)

    run = inner.run(*ANYIO)

    run.assert_outcomes(errors=1)
    run.stdout.fnmatch_lines(
        ["SQLAlchemy supports asyncio only, and this test runs on trio: override the fixture*"]
    )


def test_without_a_plugin_it_says_which(inner: InnerPytest) -> None:
    """Where nothing runs async tests, the error names both plugins."""
    inner.tests("def test_adds(async_session_factory): pass")

    run = inner.run()

    run.assert_outcomes(errors=1)
    run.stdout.fnmatch_lines(
        ["async_session_registry needs an event loop: install pytest-asyncio*"]
    )


@pytest.mark.parametrize(("isolation", "rows"), [("rollback", 0), ("none", 1)])
def test_isolation_can_be_turned_off(asyncio: InnerPytest, isolation: str, rows: int) -> None:
    """Commits stay where that is asked for; the sessions have the settings' options either way."""
    asyncio.ini(f"sessionfactory_isolation = {isolation}")
    asyncio.tests(f"""{ADD}
@pytest.mark.asyncio
async def test_adds(async_session_factory):
    await add_async(async_session_factory)
    async with async_session_factory() as session:
        assert session.sync_session.expire_on_commit is False
    """)

    asyncio.passes(*ASYNCIO, passed=1)

    assert asyncio.rows() == rows


def test_a_database_that_is_not_configured_says_what_to_set(asyncio: InnerPytest) -> None:
    """The async factory of such a database raises on use, as the sync one does."""
    asyncio.tests(f"""{ADD}
@pytest.mark.asyncio
@pytest.mark.database("analytics")
async def test_asks(async_session_factory):
    with pytest.raises(NotConfiguredError, match="set ANALYTICS_DATABASE_URL"):
        await add_async(async_session_factory)
    """)

    asyncio.passes(*ASYNCIO, passed=1)


@pytest.mark.parametrize("driver", ["postgresql", "postgresql+asyncpg"])
def test_on_postgresql(asyncio: InnerPytest, postgres_server: PostgresServer, driver: str) -> None:
    """A URL without a driver means psycopg, and one with an asynchronous driver is taken as it is.

    The URL's password reaches the driver.
    """
    _, _, rest = postgres_server.url.partition("://")
    (asyncio.folder / "conftest.py").unlink()  # it makes tables through a synchronous driver
    asyncio.tests("""
@pytest.mark.asyncio
@pytest.mark.parametrize("turn", [1, 2])
async def test_makes_a_table(async_session_factory, turn):
    async with async_session_factory.begin() as session:
        await session.execute(text("CREATE TABLE of_a_test (name TEXT)"))
    """)

    asyncio.passes(*ASYNCIO, "--sessionfactory-url", f"{driver}://{rest}", passed=2)


REGISTRY = """
@pytest.mark.database("default", "analytics")
@pytest.mark.parametrize("turn", [1, 2])
async def test_a_service_uses_two_databases(async_session_registry, async_session_factory, turn):
    assert async_session_registry.get() is async_session_factory
    for name in ("default", "analytics"):
        await add_async(async_session_registry.get(name))
        assert await count_async(async_session_registry.get(name)) == 1
"""


@pytest.mark.parametrize("plugin", [ASYNCIO, ANYIO], ids=["asyncio", "anyio"])
def test_the_async_registry_is_undone_for_each_database(
    plugin: tuple[str, ...], inner: InnerPytest
) -> None:
    """A service that takes a registry gets one of the test's event loop, whose work is undone."""
    marker = "pytest.mark.asyncio" if plugin == ASYNCIO else "pytest.mark.anyio"
    if plugin == ASYNCIO:
        inner.ini("asyncio_default_fixture_loop_scope = function")
    inner.tests(f"{ADD}{BACKEND}pytestmark = {marker}\n{REGISTRY}")

    inner.passes(
        *plugin,
        "--sessionfactory-url=sqlite:///app.db",
        "--sessionfactory-url=analytics=sqlite:///a.db",
        passed=2,
    )

    assert (inner.rows(), inner.rows("a.db")) == (0, 0)
