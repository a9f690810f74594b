"""The pytest plugin: fixtures that give tests a database, undo what they do to it, or forbid it.

Loaded in every pytest run of every user, so that nothing heavy may be imported at the top: the
fixtures do that. Each can be overridden in a ``conftest.py``; an override may ask for the original.
"""

from __future__ import annotations

import os
import re
import sys
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Final, Literal, Protocol, TypeAlias, cast

import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator

    from sessionfactory.interfaces import AsyncSessionFactory, SessionFactory
    from sessionfactory.registry import SessionFactoryRegistry

_Scope: TypeAlias = Literal["function", "class", "module", "package", "session"]
_SCOPES: Final[tuple[_Scope, ...]] = ("function", "class", "module", "package", "session")
_DEFAULT: Final = "default"
_NAMED_URL: Final = re.compile(r"(?P<name>[a-z][a-z0-9_]*)=(?P<url>.*)", re.DOTALL)
_URL_HELP: Final = "database of the tests: URL or NAME=URL; {worker} in it is pytest-xdist's worker"
_ISOLATION_HELP: Final = (
    "rollback (default): undo what a test does through session_factory; none: leave it"
)
_FORBID_HELP: Final = "forbid the database to tests without the marker 'database'"
_MARKER: Final = (
    "database(*names): the test uses these databases, by default 'default'; session_factory gives"
    " the first, and what is done to any of them is undone"
)


class _AsyncioPlugin(Protocol):
    def fixture(self, function: Callable[..., object], *, loop_scope: _Scope) -> object: ...


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options, on the command line and in the ini file."""
    group = parser.getgroup("sessionfactory")
    group.addoption(
        "--database-url", action="append", metavar="[NAME=]URL", default=[], help=_URL_HELP
    )
    group.addoption("--forbid-database", action="store_true", help=_FORBID_HELP)
    parser.addini("database_url", type="linelist", help=_URL_HELP)
    parser.addini("database_isolation", default="rollback", help=_ISOLATION_HELP)
    parser.addini("forbid_database", type="bool", default=False, help=_FORBID_HELP)


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker, and the fixtures that are pytest-asyncio's to run if it is there."""
    config.addinivalue_line("markers", _MARKER)
    isolation = config.getini("database_isolation")
    if isolation not in {"rollback", "none"}:
        message = f"database_isolation: expected 'rollback' or 'none', got {isolation!r}"
        raise pytest.UsageError(message)
    plugin = _asyncio_plugin(config)
    if plugin is not None:
        config.pluginmanager.register(_asyncio_fixtures(plugin), "sessionfactory_asyncio")


@pytest.fixture(scope="session")
def session_registry(pytestconfig: pytest.Config) -> Generator[SessionFactoryRegistry]:
    """The SessionFactoryRegistry of this test run, closed at its end.

    Its databases are those of the ini option database_url and of --database-url, which wins name
    by name. With either, the environment is not read, so that a run that names its databases
    reaches no other; without both, it is DATABASE_URL, ANALYTICS_DATABASE_URL, ….
    """
    from sessionfactory.testing._databases import make_registry  # noqa: PLC0415 - heavy

    with make_registry(_urls(pytestconfig)) as registry:
        yield registry


@pytest.fixture
def session_factory(
    request: pytest.FixtureRequest,
    session_registry: SessionFactoryRegistry,
    _isolated_databases: None,
) -> SessionFactory:
    """The SessionFactory of the database 'default', or of the marker database("name").

    What the test commits is undone at its end, unless the ini option database_isolation is "none".
    session_registry gives the same factory meanwhile.
    """
    return session_registry.get(_names(request)[0])


@pytest.fixture
def async_session_factory(request: pytest.FixtureRequest) -> AsyncSessionFactory:
    """Async twin of session_factory, with an engine of its own in the test's event loop.

    For tests that pytest-asyncio or anyio's plugin runs. What session_registry gives is untouched.
    """
    return cast("AsyncSessionFactory", request.getfixturevalue(_async_fixture(request)))


@pytest.fixture
def _guarded_registry(
    request: pytest.FixtureRequest, session_registry: SessionFactoryRegistry
) -> Generator[None]:
    from sessionfactory.testing._databases import forbidden  # noqa: PLC0415 - heavy

    reason = _why_forbidden(request)
    if reason is None:
        yield
    else:
        with forbidden(session_registry, _names(request), reason):
            yield


@pytest.fixture
def _isolated_databases(
    request: pytest.FixtureRequest,
    session_registry: SessionFactoryRegistry,
    _guarded_registry: None,
) -> Generator[None]:
    from sessionfactory.testing._databases import rolled_back  # noqa: PLC0415 - heavy

    with rolled_back(session_registry, _names(request) if _rolls_back(request) else ()):
        yield


@pytest.fixture(autouse=True)
def _database_first(request: pytest.FixtureRequest) -> None:
    # Before the test's other fixtures: a service that one of them makes from the registry must not
    # get the real factory because it stands to the left of ``session_factory``.
    names = request.fixturenames
    if "_isolated_databases" in names:
        request.getfixturevalue("_isolated_databases")
    elif "session_registry" in names:
        request.getfixturevalue("_guarded_registry")


async def _open_async_sessions(
    request: pytest.FixtureRequest, session_registry: SessionFactoryRegistry
) -> AsyncGenerator[AsyncSessionFactory]:
    from sessionfactory.testing import _databases  # noqa: PLC0415 - heavy

    reason = _why_forbidden(request)
    if reason is not None:
        yield _databases.async_null(reason)
        return
    name, rollback = _names(request)[0], _rolls_back(request)
    async with _databases.async_sessions(session_registry, name, rollback=rollback) as sessions:
        yield sessions


_anyio_session_factory = pytest.fixture(_open_async_sessions, name="_anyio_session_factory")


def _asyncio_fixtures(plugin: _AsyncioPlugin) -> ModuleType:
    """Return a plugin with one fixture for each event loop in which a test may run."""
    fixtures = ModuleType("sessionfactory_asyncio")
    for scope in _SCOPES:
        # A function for each, because pytest-asyncio notes the loop on it.
        function = FunctionType(_open_async_sessions.__code__, globals())
        fixture = plugin.fixture(function, loop_scope=scope)
        setattr(fixtures, f"_{scope}_loop_session_factory", fixture)
    return fixtures


def _asyncio_plugin(config: pytest.Config) -> _AsyncioPlugin | None:
    module = sys.modules.get("pytest_asyncio.plugin")
    is_used = module is not None and config.pluginmanager.is_registered(module)
    return cast("_AsyncioPlugin", module) if is_used else None


def _async_fixture(request: pytest.FixtureRequest) -> str:
    """Return the name of the fixture that is run by whoever runs the test."""
    has_asyncio = _asyncio_plugin(request.config) is not None
    marker = request.node.get_closest_marker("asyncio")  # all coroutines have it in mode "auto"
    if has_asyncio and marker is not None:
        default = request.config.getini("asyncio_default_test_loop_scope")
        return f"_{marker.kwargs.get('loop_scope') or default}_loop_session_factory"
    if "anyio_backend" in request.fixturenames:
        backend = request.getfixturevalue("anyio_backend_name")
        if backend != "asyncio":
            pytest.fail(
                f"SQLAlchemy knows asyncio only, and this test runs on {backend}: override the"
                " fixture anyio_backend to return 'asyncio'",
                pytrace=False,
            )
        return "_anyio_session_factory"
    if has_asyncio:
        return "_function_loop_session_factory"
    pytest.fail(
        "async_session_factory needs an event loop: install pytest-asyncio and mark the test with"
        " @pytest.mark.asyncio, or install anyio and mark it with @pytest.mark.anyio",
        pytrace=False,
    )


def _urls(config: pytest.Config) -> dict[str, str]:
    """Return the databases that the ini file and the command line name."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "master")  # as its fixture worker_id says
    urls: dict[str, str] = {}
    given = cast("list[str]", config.getoption("database_url"))
    for text in [*config.getini("database_url"), *given]:
        named = _NAMED_URL.fullmatch(text)
        name, url = named.group("name", "url") if named else (_DEFAULT, text)
        urls[name] = url.replace("{worker}", worker)
    return urls


def _names(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """Return the databases of a test, by its marker; the first is the one that it is given."""
    marker = request.node.get_closest_marker("database")
    names: tuple[object, ...] = marker.args if marker else ()
    if (marker and marker.kwargs) or not all(isinstance(name, str) for name in names):
        message = "the marker takes names of databases: @pytest.mark.database('analytics')"
        pytest.fail(message, pytrace=False)
    return cast("tuple[str, ...]", names) or (_DEFAULT,)


def _rolls_back(request: pytest.FixtureRequest) -> bool:
    return str(request.config.getini("database_isolation")) == "rollback"


def _why_forbidden(request: pytest.FixtureRequest) -> str | None:
    config = request.config
    forbids = config.getoption("forbid_database") or config.getini("forbid_database")
    if not forbids or request.node.get_closest_marker("database") is not None:
        return None
    return (
        f"{request.node.nodeid} uses the database, which is forbidden to tests without the marker:"
        " add @pytest.mark.database to the test, or give it a fake"
    )
