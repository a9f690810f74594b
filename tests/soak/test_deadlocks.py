"""Ten thousand scopes and two thousand requests on a full pool, and no false alarm."""

from __future__ import annotations

from tests.support.scopes import mixed_scopes, mixed_tasks, requests


def test_mixed_scopes(url: str) -> None:
    """Nested scopes of eight threads, on as many connections as they need at most."""
    assert mixed_scopes(url, 10_000) == 10_000


def test_mixed_tasks(url: str) -> None:
    """The same in tasks."""
    assert mixed_tasks(url, 10_000) == 10_000


def test_fastapi(url: str) -> None:
    """Requests whose dependencies run in worker threads, on a pool of two."""
    assert requests(url, 2_000) == 2_000
