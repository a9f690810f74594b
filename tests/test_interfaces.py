"""The interface at run time: code that resolves annotations can read a constructor with it."""

from __future__ import annotations

from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Final,
    Protocol,
    get_args,
    get_origin,
    get_type_hints,
)

import pytest
import svcs
from attrs import define
from dishka import Provider, Scope, make_container
from fastapi import Depends, FastAPI
from fastapi import __version__ as fastapi_version
from fastapi.testclient import TestClient
from packaging.version import Version
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import StaticPool

from sessionfactory import (
    DatabaseSettings,
    NotConfiguredError,
    NullSessionFactory,
    SessionFactory,
    SqlAlchemySessionFactory,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Analytics(SessionFactory, Protocol):
    """A second database, for a container that resolves by type."""


@define
class Answers:
    """A service: it knows the interface only."""

    sessions: SessionFactory

    def answer(self) -> int:
        """Return what the database answers."""
        with self.sessions.begin() as session:
            answer: int = session.execute(text("SELECT 42")).scalar_one()
        return answer


@define
class Reports:
    """A service with two databases."""

    sessions: SessionFactory
    analytics: Analytics


class Handwritten:
    """A service whose constructor no attrs wrote."""

    def __init__(self, sessions: SessionFactory, limit: int = 10) -> None:
        self.sessions = sessions
        self.limit = limit


def sessions() -> SessionFactory:
    """Stand for the dependency that a composition root overrides."""
    return NullSessionFactory("no database in this test")


Sessions = Annotated[SessionFactory, Depends(sessions)]


class Injected(Answers):
    """A service that FastAPI builds."""

    def __init__(self, sessions: Sessions) -> None:
        super().__init__(sessions)


def answer(sessions: Sessions) -> int:
    """Answer a request with the factory itself."""
    return Answers(sessions).answer()


def answer_by_service(service: Annotated[Injected, Depends()]) -> int:
    """Answer a request with a service."""
    return service.answer()


@pytest.fixture
def engine() -> Iterator[Engine]:
    """An engine that knows nothing of this package."""
    engine = create_engine("sqlite://", poolclass=StaticPool)
    yield engine
    engine.dispose()


@pytest.fixture
def factory() -> Iterator[SqlAlchemySessionFactory]:
    """The concrete factory on a database in memory."""
    with SqlAlchemySessionFactory(DatabaseSettings("sqlite://")) as factory:
        yield factory


@pytest.mark.parametrize("service", [Answers, Handwritten])
def test_the_hints_of_a_constructor_can_be_read(service: Callable[..., object]) -> None:
    """`typing.get_type_hints` finds the interface itself in any constructor."""
    hints = get_type_hints(service.__init__)

    assert hints["sessions"] is SessionFactory


def test_the_hints_of_the_interface_can_be_read_with_the_sqlalchemy_names() -> None:
    """The interface imports `Session` for type checkers only, and still says what it means."""
    parameter: Any = SessionFactory.__parameters__[0]  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownVariableType]

    assert parameter.__covariant__
    assert parameter.has_default()


def test_a_session_class_can_be_named() -> None:
    """`SessionFactory[MySession]` is an ordinary generic alias at run time."""

    class MySession(Session):
        pass

    alias = SessionFactory[MySession]

    assert get_origin(alias) is SessionFactory
    assert get_args(alias) == (MySession,)


def test_a_plain_sessionmaker_is_a_factory(engine: Engine) -> None:
    """A service that depends on the interface owes this package nothing."""
    assert Answers(sessionmaker(engine)).answer() == 42


def test_the_concrete_factory_is_a_factory(factory: SqlAlchemySessionFactory) -> None:
    """The same service works with the concrete class."""
    assert Answers(factory).answer() == 42


def test_the_null_factory_is_a_factory() -> None:
    """The same service says what is missing when there is no database."""
    with pytest.raises(NotConfiguredError, match=r"^no database in this test$"):
        Answers(NullSessionFactory("no database in this test")).answer()


READS_CONSTRUCTORS: Final = Version(fastapi_version) >= Version("0.124")
"""Whether FastAPI resolves postponed annotations of a class that is a dependency."""


@pytest.mark.parametrize(
    "route",
    [
        answer,
        pytest.param(
            answer_by_service,
            marks=pytest.mark.skipif(not READS_CONSTRUCTORS, reason="FastAPI before 0.124"),
        ),
    ],
)
def test_fastapi_depends_on_the_interface(
    factory: SqlAlchemySessionFactory, route: Callable[..., int]
) -> None:
    """A route, or the constructor of a service, gets the factory that a dependency returns."""
    app = FastAPI()
    app.get("/answer")(route)
    app.dependency_overrides[sessions] = lambda: factory

    with TestClient(app) as client:
        response = client.get("/answer")

    assert (response.status_code, response.json()) == (200, 42)


def test_fastapi_passes_the_null_factory_on() -> None:
    """A route without a database fails with the sentence that says so."""
    app = FastAPI()
    app.get("/answer")(answer)

    with TestClient(app) as client, pytest.raises(NotConfiguredError, match=r"^no database in"):
        client.get("/answer")


def test_dishka_resolves_two_databases(factory: SqlAlchemySessionFactory, engine: Engine) -> None:
    """A dishka container fills a constructor by type: the interface, and a sub-protocol of it."""
    provider = Provider(scope=Scope.APP)
    provider.provide(lambda: factory, provides=SessionFactory)
    provider.provide(lambda: sessionmaker(engine), provides=Analytics)
    provider.provide(Answers)
    provider.provide(Reports)
    container = make_container(provider)

    reports = container.get(Reports)

    assert container.get(Answers).answer() == 42
    assert reports.sessions is factory
    assert Answers(reports.analytics).answer() == 42
    container.close()


def test_svcs_resolves_two_databases(factory: SqlAlchemySessionFactory, engine: Engine) -> None:
    """An svcs container finds the factories under the interface, and under a sub-protocol of it."""
    with svcs.Registry() as registry, svcs.Container(registry) as container:
        registry.register_value(SessionFactory, factory)
        registry.register_value(Analytics, sessionmaker(engine))
        registry.register_factory(Answers, make_answers)

        assert container.get(Answers).answer() == 42
        assert container.get_abstract(SessionFactory) is factory
        assert Answers(container.get_abstract(Analytics)).answer() == 42


def make_answers(container: svcs.Container) -> Answers:
    """Build the service as svcs does."""
    sessions: SessionFactory = container.get_abstract(SessionFactory)
    return Answers(sessions)
