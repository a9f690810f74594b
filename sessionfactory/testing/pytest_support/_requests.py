"""What a test and its run ask of the pytest plugin, by markers and options.

A module of its own, because every pytest run of every user loads the plugin, and few need this.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Final, cast

import pytest

if TYPE_CHECKING:
    from sessionfactory.interfaces import AsyncSessionFactory

_DEFAULT: Final = "default"
_NAMED_URL: Final = re.compile(r"(?P<name>[a-z][a-z0-9_]*)=(?P<url>.*)", re.DOTALL)


def named_urls(config: pytest.Config) -> dict[str, str]:
    """Return the databases that the ini file and the command line name."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "master")  # as its fixture worker_id says
    urls: dict[str, str] = {}
    given = cast("list[str]", config.getoption("database_url"))
    for text in [*config.getini("database_url"), *given]:
        named = _NAMED_URL.fullmatch(text)
        name, url = named.group("name", "url") if named else (_DEFAULT, text)
        urls[name] = url.replace("{worker}", worker)
    return urls


class Asked:
    """What one test asks for."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self._request = request
        self._config = request.config

    @property
    def names(self) -> tuple[str, ...]:
        """The databases of the test, by its marker; the first is the one that it is given."""
        marker = self._request.node.get_closest_marker("database")
        names: tuple[object, ...] = marker.args if marker else ()
        if (marker and marker.kwargs) or not all(isinstance(name, str) for name in names):
            message = "the marker takes names of databases: @pytest.mark.database('analytics')"
            pytest.fail(message, pytrace=False)
        return cast("tuple[str, ...]", names) or (_DEFAULT,)

    @property
    def rolls_back(self) -> bool:
        """Whether what the test commits is to be undone."""
        return str(self._config.getini("database_isolation")) == "rollback"

    @property
    def why_forbidden(self) -> str | None:
        """Why the test may not use the database, if it may not."""
        forbids = self._config.getoption("forbid_database") or self._config.getini(
            "forbid_database"
        )
        if not forbids or self._request.node.get_closest_marker("database") is not None:
            return None
        return (
            f"{self._request.node.nodeid} uses the database, which is forbidden to tests without"
            " the marker: add @pytest.mark.database to the test, or give it a fake"
        )

    def async_sessions(self, *, has_asyncio: bool) -> AsyncSessionFactory:
        """Return what the fixture gives that is run by whoever runs the test.

        Args:
            has_asyncio: whether pytest-asyncio is there to run tests.
        """
        name = self._async_fixture(has_asyncio=has_asyncio)
        return cast("AsyncSessionFactory", self._request.getfixturevalue(name))

    def _async_fixture(self, *, has_asyncio: bool) -> str:
        marker = self._request.node.get_closest_marker("asyncio")  # in mode "auto" all have it
        if has_asyncio and marker is not None:
            default = self._config.getini("asyncio_default_test_loop_scope")
            return f"_{marker.kwargs.get('loop_scope') or default}_loop_session_factory"
        if "anyio_backend" in self._request.fixturenames:
            backend = self._request.getfixturevalue("anyio_backend_name")
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
            "async_session_factory needs an event loop: install pytest-asyncio and mark the test"
            " with @pytest.mark.asyncio, or install anyio and mark it with @pytest.mark.anyio",
            pytrace=False,
        )
