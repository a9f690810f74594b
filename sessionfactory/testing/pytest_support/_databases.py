"""What the pytest plugin's fixtures do with databases, without pytest.

A module of its own, because it imports SQLAlchemy, which the plugin may not do when it is loaded.
"""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, cast

import attrs

from sessionfactory.config.configuration import DEFAULT, Place, Source, configure
from sessionfactory.config.environment import read_variables
from sessionfactory.config.masking import Masked
from sessionfactory.errors import NotConfiguredError
from sessionfactory.null import NullSessionFactory
from sessionfactory.registry.borrowed import owned
from sessionfactory.registry.registry import SessionFactoryRegistry
from sessionfactory.testing.recording.recording import Recording, RecordingSessionFactory
from sessionfactory.testing.rollback.rollback import RollbackSessionFactory

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Mapping
    from typing import Never

    from sqlalchemy.orm import Session

    from sessionfactory.interfaces import SessionFactory
    from sessionfactory.testing.pytest_support._requests import Requested


@attrs.frozen
class _Options(Place):
    """The command line and the ini file of a test run, as places where databases are named."""

    kind: str = "--sessionfactory-url or sessionfactory_url"

    def way_to_add(self, name: str) -> str:
        return f"run pytest with --sessionfactory-url {'' if name == DEFAULT else f'{name}='}URL"

    def origin(self, name: str) -> str:  # noqa: ARG002 - the same for every database
        return self.kind


def make_registry(urls: Mapping[str, str]) -> SessionFactoryRegistry:
    """Return a registry of the databases at these URLs; without any, of the environment's.

    Raises:
        SettingsError: everything that is wrong with them.
    """
    # A failing test run may print the local variables of this frame.
    given, urls = Masked(urls), {}
    options = Source(_Options())
    for name in given.reveal():
        options.put(name, ("url",), given.reveal()[name], options.place.origin(name))
    variables = () if given.reveal() else (read_variables(Masked(os.environ), None),)
    sources = (*variables, options)
    return SessionFactoryRegistry._of(configure(*sources))  # noqa: SLF001 - our own


def as_registry(given: SessionFactoryRegistry) -> SessionFactoryRegistry:
    """Return the value of the fixture ``session_registry``, which a ``conftest.py`` may override.

    Raises:
        TypeError: it is not a registry, for instance because the override returns nothing.
    """
    if isinstance(given, SessionFactoryRegistry):
        return given
    raise TypeError(
        "The fixture session_registry is overridden, perhaps by a conftest.py, and returned"
        f" {type(given).__name__}: return a SessionFactoryRegistry, such as the one that it"
        " requests"
    )


class _ForbiddenSessionFactory(NullSessionFactory):
    """The null factory of a test that may not use the database, nor its engine."""

    __slots__ = ()

    @property
    def engine(self) -> Never:
        raise NotConfiguredError(self.reason)


@contextmanager
def forbidden(
    registry: SessionFactoryRegistry, names: Iterable[str], reason: str
) -> Generator[None]:
    """Make a registry refuse all its databases, and those named, for a reason."""
    null = _ForbiddenSessionFactory(reason)
    with ExitStack() as overrides:
        for name in {*registry.names, *names}:
            overrides.enter_context(registry.override(name, null))
        yield


@contextmanager
def rolled_back(registry: SessionFactoryRegistry, names: Iterable[str]) -> Generator[None]:
    """Make a registry return, for these databases, views that undo everything at the end.

    A view that a wider fixture has made is left: ``savepoints`` undoes a test's own work on it.
    """
    with ExitStack() as views:
        for name in names:
            sessions = registry.get(name)
            if not isinstance(owned(sessions), NullSessionFactory | RollbackSessionFactory):
                view = views.enter_context(RollbackSessionFactory(sessions))
                views.enter_context(registry.override(name, view))
        yield


@contextmanager
def savepoints(registry: SessionFactoryRegistry) -> Generator[None]:
    """Undo what a test does on the rollback views that wider fixtures have made."""
    with ExitStack() as blocks:
        for sessions in map(owned, registry._catalogue.overriding()):  # noqa: SLF001 - our own
            if isinstance(sessions, RollbackSessionFactory):
                view = cast("RollbackSessionFactory[Session]", sessions)
                blocks.enter_context(view.savepoint())
        yield


@attrs.frozen
class Recorder:
    """The one recording of a test's factories and registries, of both halves."""

    recording: Recording = attrs.field(factory=Recording)


@contextmanager
def recorded(
    registry: SessionFactoryRegistry, names: Iterable[str], recording: Recording
) -> Generator[None]:
    """Make a registry return, for these databases, factories that record what is done."""
    with ExitStack() as overrides:
        for name in names:
            recorder = RecordingSessionFactory(registry.get(name), recording=recording)
            overrides.enter_context(
                registry.override(name, recorder, reader=getattr(recorder, "reader", None))
            )
        yield


@contextmanager
def guarded(given: SessionFactoryRegistry, requested: Requested) -> Generator[None]:
    """Refuse a test the databases if they are forbidden to it, or undo its work on wider views."""
    registry = as_registry(given)
    reason = requested.reason_forbidden
    with savepoints(registry) if reason is None else forbidden(registry, requested.names, reason):
        yield


@contextmanager
def isolated_module(
    given: SessionFactoryRegistry, requested: Requested
) -> Generator[SessionFactory]:
    """Make a registry return rollback views for all tests of a module, and return the first."""
    registry = as_registry(given)
    reason = requested.reason_forbidden
    if reason is not None:
        yield _ForbiddenSessionFactory(reason)
        return
    with rolled_back(registry, requested.names if requested.rolls_back else ()):
        yield registry.get(requested.names[0])
