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
    """What one test requests."""

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
            " the marker: add @pytest.mark.database to the test, or give it a fake"
        )

    def async_registry(self, *, has_asyncio: bool) -> AsyncSessionFactoryRegistry:
        """Return the value of the fixture that is run by the plugin that runs the test.

        Args:
            has_asyncio: whether pytest-asyncio is loaded.
        """
        name = self._async_fixture(has_asyncio=has_asyncio)
        return cast("AsyncSessionFactoryRegistry", self._request.getfixturevalue(name))

    def _async_fixture(self, *, has_asyncio: bool) -> str:
        marker = self._request.node.get_closest_marker("asyncio")  # in mode "auto" all have it
        if has_asyncio and marker is not None:
            default = self._config.getini("asyncio_default_test_loop_scope")
            return f"_{marker.kwargs.get('loop_scope') or default}_loop_session_registry"
        if "anyio_backend" in self._request.fixturenames:
            backend = self._request.getfixturevalue("anyio_backend_name")
            if backend != "asyncio":
                pytest.fail(
                    f"SQLAlchemy supports asyncio only, and this test runs on {backend}: override"
                    " the fixture anyio_backend to return 'asyncio'",
                    pytrace=False,
                )
            return "_anyio_session_registry"
        if has_asyncio:
            return "_function_loop_session_registry"
        pytest.fail(
            "async_session_registry needs an event loop: install pytest-asyncio and mark the test"
            " with @pytest.mark.asyncio, or install anyio and mark it with @pytest.mark.anyio",
            pytrace=False,
        )
