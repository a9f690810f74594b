"""What a test and its run request of the pytest plugin, by markers and options.

A module of its own, because every pytest run of every user loads the plugin, and few need this.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Final, cast

import pytest

if TYPE_CHECKING:
    from sessionfactory.registry.registry_async import AsyncSessionFactoryRegistry
    from sessionfactory.testing.pytest_support._module_registry import ModuleRegistry
    from sessionfactory.testing.recording.recording import Recording

_DEFAULT: Final = "default"
_NAMED_URL: Final = re.compile(r"(?P<name>[a-z][a-z0-9_]*)=(?P<url>.*)", re.DOTALL)


def named_urls(config: pytest.Config) -> dict[str, str]:
    """Return the databases that the ini file and the command line name."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "master")  # as in xdist's fixture worker_id
    urls: dict[str, str] = {}
    given = cast("list[str]", config.getoption("sessionfactory_url"))
    for text in [*config.getini("sessionfactory_url"), *given]:
        named = _NAMED_URL.fullmatch(text)
        name, url = named.group("name", "url") if named else (_DEFAULT, text)
        urls[name] = url.replace("{worker}", worker)
    return urls


class Requested:
    """What one test, or a fixture of a module, requests."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self._request = request
        self._config = request.config

    @property
    def names(self) -> tuple[str, ...]:
        """The databases of the test, by its marker; the first is that of session_factory."""
        marker = self._request.node.get_closest_marker("database")
        names: tuple[object, ...] = marker.args if marker else ()
        if (marker and marker.kwargs) or not all(isinstance(name, str) for name in names):
            message = "the marker takes names of databases: @pytest.mark.database('analytics')"
            pytest.fail(message, pytrace=False)
        return cast("tuple[str, ...]", names) or (_DEFAULT,)

    @property
    def rolls_back(self) -> bool:
        """Whether what the test commits is undone."""
        return str(self._config.getini("sessionfactory_isolation")) == "rollback"

    @property
    def reason_forbidden(self) -> str | None:
        """Why the test may not use the database; ``None`` if it may."""
        forbids = self._config.getoption("sessionfactory_forbid_database") or self._config.getini(
            "sessionfactory_forbid_database"
        )
        if not forbids or self._request.node.get_closest_marker("database") is not None:
            return None
        return (
            f"{self._request.node.nodeid} uses the database, which is forbidden to tests without"
            f" the marker: {self._way_to_allow()}, or give it a fake"
        )

    @property
    def recording(self) -> Recording | None:
        """Where the test's statements are recorded; ``None`` if it sets no limit on them."""
        if "max_queries" not in self._request.fixturenames:
            return None
        recorder = self._request.getfixturevalue("_query_recorder")
        return cast("Recording", recorder.recording)

    def _way_to_allow(self) -> str:
        if isinstance(self._request.node, pytest.Module):
            return "add pytestmark = pytest.mark.database to the test file"
        return "add @pytest.mark.database to the test"

    def async_registry(self, *, has_asyncio: bool) -> AsyncSessionFactoryRegistry:
        """Return the value of the fixture that is run by the plugin that runs the test.

        Args:
            has_asyncio: whether pytest-asyncio is loaded.
        """
        loop = self._event_loop(has_asyncio=has_asyncio)
        fixture = f"_{loop}_session_registry"
        return cast("AsyncSessionFactoryRegistry", self._request.getfixturevalue(fixture))

    def async_module_registry(self, *, has_asyncio: bool) -> ModuleRegistry:
        """Return the registry of all tests of a module, from the fixture of its event loop.

        Args:
            has_asyncio: whether pytest-asyncio is loaded.
        """
        loop = self._event_loop(has_asyncio=has_asyncio)
        if loop in {"function_loop", "class_loop"}:
            loop = "module_loop"  # each test checks that it runs in this one
        fixture = f"_{loop}_module_registry"
        return cast("ModuleRegistry", self._request.getfixturevalue(fixture))

    def _event_loop(self, *, has_asyncio: bool) -> str:
        """Return what runs the test: ``anyio``, or the scope of pytest-asyncio's loop."""
        marker = self._request.node.get_closest_marker("asyncio")  # in mode "auto" all have it
        if has_asyncio and marker is not None:
            default = self._config.getini("asyncio_default_test_loop_scope")
            return f"{marker.kwargs.get('loop_scope') or default}_loop"
        if "anyio_backend" in self._request.fixturenames:
            given = self._request.getfixturevalue("anyio_backend")  # its name, perhaps with options
            backend = given if isinstance(given, str) else given[0]
            if backend != "asyncio":
                pytest.fail(
                    f"SQLAlchemy supports asyncio only, and this test runs on {backend}: override"
                    " the fixture anyio_backend to return 'asyncio'",
                    pytrace=False,
                )
            return "anyio"
        if has_asyncio:
            return "function_loop"
        pytest.fail(
            "async_session_registry needs an event loop: install pytest-asyncio and mark the test"
            " with @pytest.mark.asyncio, or install anyio and mark it with @pytest.mark.anyio",
            pytrace=False,
        )
