"""The pytest plugin: fixtures that give tests a database, undo what they do to it, or forbid it.

It is loaded in every pytest run of every user, so that nothing heavy is imported at the top: the
fixtures do that. Each fixture can be overridden in a ``conftest.py``; an override may request the
original. Options have the package's name in front, because suites have a ``--database-url`` of
their own.

This file is short, because pytest compiles it in each run that may not write bytecode. For the same
reason it contains PYTEST_DONT_REWRITE: there are no assertions in it.
"""

from __future__ import annotations

import sys
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator
    from contextlib import AbstractAsyncContextManager, AbstractContextManager
    from typing import Any, Final, Literal, Protocol, TypeAlias

    from sessionfactory.interfaces import AsyncSessionFactory, SessionFactory
    from sessionfactory.registry.registry import SessionFactoryRegistry
    from sessionfactory.registry.registry_async import AsyncSessionFactoryRegistry
    from sessionfactory.testing.pytest_support._databases import Recorder
    from sessionfactory.testing.pytest_support._module_registry import ModuleRegistry
    from sessionfactory.testing.pytest_support._requests import Requested

    Scope: TypeAlias = Literal["function", "class", "module", "package", "session"]

    class AsyncioPlugin(Protocol):
        """The part of pytest-asyncio that is used here."""

        def fixture(
            self, function: Callable[..., object], *, loop_scope: Scope, scope: Scope = ...
        ) -> object:
            """Make a fixture of a scope, which runs in the loop of another or the same."""
            ...


_SCOPES: Final[tuple[Scope, ...]] = ("function", "class", "module", "package", "session")
_URL_HELP: Final = "database of the tests: URL or NAME=URL; {worker} in it is pytest-xdist's worker"
_ISOLATION_HELP: Final = (
    "rollback (default): undo what a test does through session_factory; none: leave it"
)
_FORBID_HELP: Final = "forbid the database to tests without the marker 'database'"
_MARKER: Final = (
    "database(*names): the test uses these databases, by default 'default'; session_factory is the"
    " first, and changes to any of them are undone"
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options, on the command line and in the ini file."""
    group = parser.getgroup("sessionfactory")
    group.addoption(
        "--sessionfactory-url", action="append", metavar="[NAME=]URL", default=[], help=_URL_HELP
    )
    group.addoption("--sessionfactory-forbid-database", action="store_true", help=_FORBID_HELP)
    parser.addini("sessionfactory_url", type="linelist", help=_URL_HELP)
    parser.addini("sessionfactory_isolation", default="rollback", help=_ISOLATION_HELP)
    parser.addini("sessionfactory_forbid_database", type="bool", default=False, help=_FORBID_HELP)


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker, and the fixtures that pytest-asyncio runs, if it is loaded."""
    config.addinivalue_line("markers", _MARKER)
    isolation = config.getini("sessionfactory_isolation")
    if isolation not in {"rollback", "none"}:
        message = f"sessionfactory_isolation: expected 'rollback' or 'none', got {isolation!r}"
        raise pytest.UsageError(message)
    plugin = _asyncio_plugin(config)
    if plugin is not None:
        config.pluginmanager.register(_asyncio_fixtures(plugin), "sessionfactory_asyncio")


@pytest.fixture(scope="session")
def session_registry(pytestconfig: pytest.Config) -> Generator[SessionFactoryRegistry]:
    """The SessionFactoryRegistry of this test run, closed at its end.

    Its databases are those of the ini option sessionfactory_url and of --sessionfactory-url, which
    wins name by name. With either, the environment is not read, so that a run that names its
    databases reaches no other; without both, it is DATABASE_URL, ANALYTICS_DATABASE_URL, ….
    """
    from sessionfactory.testing.pytest_support._databases import make_registry  # noqa: PLC0415 - heavy
    from sessionfactory.testing.pytest_support._requests import named_urls  # noqa: PLC0415 - heavy

    with make_registry(named_urls(pytestconfig)) as registry:
        yield registry


@pytest.fixture
def session_factory(
    request: pytest.FixtureRequest,
    session_registry: SessionFactoryRegistry,
    _isolated_databases: None,
) -> SessionFactory:
    """The SessionFactory of the database 'default', or of the marker database("name").

    What the test commits is undone at its end, unless the ini option sessionfactory_isolation is
    "none". session_registry returns the same factory during the test.
    """
    return session_registry.get(_requested(request).names[0])


@pytest.fixture
def max_queries(
    _query_recorder: Recorder,
) -> Callable[[int], AbstractContextManager[None]]:
    """Return a context manager that limits the statements of a block: 3 by its argument 3.

    Counted are the statements of both halves' factories and registries of this test.
    """
    from sessionfactory.testing.recording.query_budget import max_queries  # noqa: PLC0415 - heavy

    return lambda limit: max_queries(_query_recorder, limit)


@pytest.fixture
def _query_recorder() -> Recorder:
    from sessionfactory.testing.pytest_support._databases import Recorder  # noqa: PLC0415 - heavy

    return Recorder()


@pytest.fixture(scope="module")
def module_session_factory(
    request: pytest.FixtureRequest, session_registry: SessionFactoryRegistry
) -> Generator[SessionFactory]:
    """session_factory for fixtures of a module: what they commit is there for each of its tests.

    Until the module's end, where all is undone, session_registry and session_factory return this
    factory as well; each test's own work is undone at the test's end. Another database than
    'default' is named by pytestmark = pytest.mark.database("name").
    """
    from sessionfactory.testing.pytest_support._databases import isolated_module  # noqa: PLC0415 - heavy

    with isolated_module(session_registry, _requested(request)) as sessions:
        yield sessions


@pytest.fixture(scope="module")
def async_module_session_factory(request: pytest.FixtureRequest) -> AsyncSessionFactory:
    """Async twin of module_session_factory, for tests that run in the module's event loop.

    Such a test requests it, or a fixture that does: other tests have a registry of their own.
    """
    requested = _requested(request)
    has_asyncio = _asyncio_plugin(request.config) is not None
    registry = requested.async_module_registry(has_asyncio=has_asyncio).registry
    return registry.get(requested.names[0])


@pytest.fixture
def async_session_registry(request: pytest.FixtureRequest) -> AsyncSessionFactoryRegistry:
    """The AsyncSessionFactoryRegistry of this test, on the databases of session_registry.

    Its engines belong to the test's event loop, so that it is made for each test: one that
    pytest-asyncio or anyio's plugin runs. What the test commits to its databases is undone.
    """
    has_asyncio = _asyncio_plugin(request.config) is not None
    return _requested(request).async_registry(has_asyncio=has_asyncio)


@pytest.fixture
def async_session_factory(
    request: pytest.FixtureRequest, async_session_registry: AsyncSessionFactoryRegistry
) -> AsyncSessionFactory:
    """Async twin of session_factory; async_session_registry returns the same factory."""
    return async_session_registry.get(_requested(request).names[0])


@pytest.fixture
def _guarded_registry(
    request: pytest.FixtureRequest, session_registry: SessionFactoryRegistry
) -> Generator[None]:
    from sessionfactory.testing.pytest_support._databases import guarded  # noqa: PLC0415 - heavy

    with guarded(session_registry, _requested(request)):
        yield


@pytest.fixture
def _isolated_databases(
    request: pytest.FixtureRequest,
    session_registry: SessionFactoryRegistry,
    _guarded_registry: None,
) -> Generator[None]:
    from sessionfactory.testing.pytest_support._databases import recorded, rolled_back  # noqa: PLC0415 - heavy

    requested = _requested(request)
    recording = requested.recording
    with rolled_back(session_registry, requested.names if requested.rolls_back else ()):
        if recording is None:
            yield
        else:
            with recorded(session_registry, requested.names, recording):
                yield


@pytest.fixture(autouse=True)
def _database_first(request: pytest.FixtureRequest) -> None:
    # Before the test's other fixtures: a service that one of them makes from the registry must not
    # get the real factory because it precedes ``session_factory``.
    names = request.fixturenames
    if "async_module_session_factory" in names:
        request.getfixturevalue("async_session_registry")
    if not {"_isolated_databases", "module_session_factory", "max_queries"}.isdisjoint(names):
        request.getfixturevalue("_isolated_databases")
    elif "session_registry" in names:
        request.getfixturevalue("_guarded_registry")


async def _open_async_registry(
    request: pytest.FixtureRequest, session_registry: SessionFactoryRegistry
) -> AsyncGenerator[AsyncSessionFactoryRegistry]:
    from sessionfactory.testing.pytest_support._databases_async import (  # noqa: PLC0415 - heavy
        async_registry_of,
        recorded_async,
    )

    requested = _requested(request)
    test: AbstractAsyncContextManager[AsyncSessionFactoryRegistry]
    if "async_module_session_factory" in request.fixturenames:
        has_asyncio = _asyncio_plugin(request.config) is not None
        shared = requested.async_module_registry(has_asyncio=has_asyncio)
        test = shared.for_test()
    else:
        test = async_registry_of(session_registry, requested)
    async with test as registry:
        if requested.recording is None:
            yield registry
        else:
            with recorded_async(registry, requested.names, requested.recording):
                yield registry


async def _open_module_registry(
    request: pytest.FixtureRequest, session_registry: SessionFactoryRegistry
) -> AsyncGenerator[ModuleRegistry]:
    from sessionfactory.testing.pytest_support._databases_async import async_registry_of  # noqa: PLC0415 - heavy
    from sessionfactory.testing.pytest_support._module_registry import ModuleRegistry  # noqa: PLC0415 - heavy

    async with async_registry_of(session_registry, _requested(request)) as registry:
        yield ModuleRegistry(registry)


_anyio_session_registry = pytest.fixture(_open_async_registry, name="_anyio_session_registry")
_anyio_module_registry = pytest.fixture(
    _open_module_registry, name="_anyio_module_registry", scope="module"
)


def _asyncio_fixtures(plugin: AsyncioPlugin) -> ModuleType:
    """Return a plugin with one fixture for each event loop in which a test may run."""
    fixtures = ModuleType("sessionfactory_asyncio")
    for scope in _SCOPES:
        # A function for each, because pytest-asyncio records the loop on it.
        function = FunctionType(_open_async_registry.__code__, globals())
        fixture = plugin.fixture(function, loop_scope=scope)
        setattr(fixtures, f"_{scope}_loop_session_registry", fixture)
    for scope in _SCOPES[2:]:
        function = FunctionType(_open_module_registry.__code__, globals())
        fixture = plugin.fixture(function, scope="module", loop_scope=scope)
        setattr(fixtures, f"_{scope}_loop_module_registry", fixture)
    return fixtures


def _asyncio_plugin(config: pytest.Config) -> AsyncioPlugin | None:
    module: Any = sys.modules.get("pytest_asyncio.plugin")
    return module if module is not None and config.pluginmanager.is_registered(module) else None


def _requested(request: pytest.FixtureRequest) -> Requested:
    from sessionfactory.testing.pytest_support._requests import Requested  # noqa: PLC0415 - few runs need it

    return Requested(request)
