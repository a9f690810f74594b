"""The null factory: legal everywhere, and of no use but to say what is missing."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import pytest

from sessionfactory import NotConfiguredError, NullSessionFactory, SessionFactoryError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sessionfactory import SessionFactory

REASON = "Database 'analytics' is not configured: set ANALYTICS_DATABASE_URL (environment)"


def call(sessions: SessionFactory) -> None:
    """Open a session."""
    sessions()


def begin(sessions: SessionFactory) -> None:
    """Ask for a transaction, and do not enter it."""
    sessions.begin()


def enter(sessions: SessionFactory) -> None:
    """Run an empty transaction."""
    with sessions.begin():
        pytest.fail("the block must not run")


@pytest.mark.parametrize("use", [call, begin, enter])
def test_every_use_raises_the_reason(use: Callable[[SessionFactory], object]) -> None:
    """Each way to a session ends in `NotConfiguredError`, whose text is the reason alone."""
    with pytest.raises(NotConfiguredError) as caught:
        use(NullSessionFactory(REASON))

    assert str(caught.value) == REASON


@pytest.mark.parametrize("kind", [RuntimeError, SessionFactoryError])
def test_the_error_is_what_handlers_catch(kind: type[Exception]) -> None:
    """The error is ours, and the `RuntimeError` that a hand-written `get_db` raised."""
    with pytest.raises(kind, match="ANALYTICS_DATABASE_URL"):
        NullSessionFactory(REASON)()


def test_it_shows_its_reason() -> None:
    """A debugger and a log say at once why there is no database."""
    null = NullSessionFactory(REASON)

    assert repr(null) == f"NullSessionFactory({REASON!r})"
    assert null.reason == REASON


def test_it_holds_nothing_else() -> None:
    """There is no engine in it, and nothing can be hung onto it."""
    null = NullSessionFactory(REASON)

    assert not hasattr(null, "__dict__")
    assert not hasattr(null, "engine")


def test_it_can_be_copied() -> None:
    """A service that is copied takes its null factory along."""
    assert copy.deepcopy(NullSessionFactory(REASON)).reason == REASON
