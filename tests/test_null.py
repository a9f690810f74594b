"""The null factory: legal everywhere, and of no use but to say what is missing."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import pytest

from sessionfactory import (
    AsyncNullSessionFactory,
    NotConfiguredError,
    NullSessionFactory,
    SessionFactoryError,
)
from tests.support.halves import in_both_halves

if TYPE_CHECKING:
    from tests.support.halves import Half

REASON = "Database 'analytics' is not configured: set ANALYTICS_DATABASE_URL (environment)"


@in_both_halves
async def test_every_use_raises_the_reason(half: Half) -> None:
    """Each way to a session ends in an error whose text is the reason alone, awaited or not."""
    null = half.make(AsyncNullSessionFactory, REASON)
    for use in (null, null.begin):
        with pytest.raises(NotConfiguredError) as caught:
            use()
        assert str(caught.value) == REASON

    with pytest.raises(NotConfiguredError):
        async with null.begin():
            pytest.fail("the block must not run")


@pytest.mark.parametrize("kind", [RuntimeError, SessionFactoryError])
@in_both_halves
async def test_the_error_is_what_handlers_catch(half: Half, kind: type[Exception]) -> None:
    """The error is ours, and the `RuntimeError` that a hand-written `get_db` raised."""
    with pytest.raises(kind, match="ANALYTICS_DATABASE_URL"):
        half.make(AsyncNullSessionFactory, REASON)()


@in_both_halves
async def test_it_shows_its_reason(half: Half) -> None:
    """A debugger and a log say at once why there is no database."""
    null = half.make(AsyncNullSessionFactory, REASON)

    assert repr(null).removeprefix("Async") == f"NullSessionFactory({REASON!r})"
    assert null.reason == REASON


@pytest.mark.parametrize("kind", [NullSessionFactory, AsyncNullSessionFactory])
def test_it_holds_nothing_else(kind: type[NullSessionFactory | AsyncNullSessionFactory]) -> None:
    """There is no engine in it, and nothing can be hung onto it."""
    null = kind(REASON)

    assert not hasattr(null, "__dict__")
    assert not hasattr(null, "engine")


@pytest.mark.parametrize("kind", [NullSessionFactory, AsyncNullSessionFactory])
def test_it_can_be_copied(kind: type[NullSessionFactory | AsyncNullSessionFactory]) -> None:
    """A service that is copied takes its null factory along."""
    assert copy.deepcopy(kind(REASON)).reason == REASON
