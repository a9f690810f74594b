"""The interface where containers and validators check what they inject against the annotation."""

from __future__ import annotations

from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import pytest
from beartype import beartype
from beartype.roar import BeartypeCallHintParamViolation
from fast_depends import Depends, inject
from fast_depends.exceptions import ValidationError as InjectionError
from litestar import Litestar, get
from litestar.di import Provide
from litestar.testing import TestClient
from pydantic import BaseModel, ConfigDict, ValidationError
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session, async_sessionmaker
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from sessionfactory import (
    AsyncNullSessionFactory,
    AsyncSessionFactory,
    AsyncSessionFactoryRegistry,
    DatabaseSettings,
    NullSessionFactory,
    SessionFactory,
    SessionFactoryRegistry,
    with_options,
)
from sessionfactory.testing import AsyncRollbackSessionFactory, RollbackSessionFactory

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator

MEMORY = {"default": DatabaseSettings("sqlite://")}


class Fake:
    """A handwritten factory of the sync half."""

    def __call__(self) -> Session:
        raise NotImplementedError

    @contextmanager
    def begin(self) -> Generator[Session]:
        yield self()


class AsyncFake:
    """A handwritten factory of the async half."""

    def __call__(self) -> AsyncSession:
        raise NotImplementedError

    @asynccontextmanager
    async def begin(self) -> AsyncGenerator[AsyncSession]:
        yield self()


class Untyped:
    """A factory whose half is unknown."""

    def __call__(self) -> Any: ...

    def begin(self) -> Any: ...


SYNC: list[object] = [
    NullSessionFactory("none"),
    sessionmaker(),
    Fake(),
]
ASYNC: list[object] = [
    AsyncNullSessionFactory("none"),
    async_sessionmaker(),
    AsyncFake(),
]
NEITHER: list[object] = [
    *(None, 5, object(), Session(), AsyncSession(), scoped_session(sessionmaker())),
    async_scoped_session(async_sessionmaker(), scopefunc=object),
]


def is_one(given: object, interface: Any) -> bool:
    """Return what ``isinstance`` returns; type checkers know that the halves exclude each other."""
    return isinstance(given, interface)


def name(given: object) -> str:
    """Return the name of a case."""
    return type(given).__name__


@pytest.mark.parametrize("given", SYNC, ids=name)
def test_a_sync_factory_is_an_instance_of_its_half(given: object) -> None:
    """`isinstance` takes every factory of the half, and refuses it as one of the other."""
    assert is_one(given, SessionFactory)
    assert not is_one(given, AsyncSessionFactory)


@pytest.mark.parametrize("given", ASYNC, ids=name)
def test_an_async_factory_is_an_instance_of_its_half(given: object) -> None:
    """The same holds the other way round."""
    assert is_one(given, AsyncSessionFactory)
    assert not is_one(given, SessionFactory)


@pytest.mark.asyncio
async def test_what_a_registry_hands_out_is_of_its_half() -> None:
    """Factories, readers and fakes are distinguished, too."""
    with SessionFactoryRegistry(MEMORY) as one:
        for given in (one.get(), one.reader(), RollbackSessionFactory(one.get())):
            assert is_one(given, SessionFactory)
            assert not is_one(given, AsyncSessionFactory)
    async with AsyncSessionFactoryRegistry(MEMORY) as two:
        for other in (two.get(), two.reader(), AsyncRollbackSessionFactory(two.get())):
            assert is_one(other, AsyncSessionFactory)
            assert not is_one(other, SessionFactory)


@pytest.mark.parametrize("given", NEITHER, ids=name)
def test_anything_else_is_none(given: object) -> None:
    """Sessions, registries of one session, and other things are refused."""
    assert not is_one(given, SessionFactory)
    assert not is_one(given, AsyncSessionFactory)


@pytest.mark.parametrize("given", [Untyped(), with_options(sessionmaker(), read_only=True)])
def test_a_factory_of_unknown_half_is_taken(given: object) -> None:
    """A check never refuses a factory that may be right."""
    assert is_one(given, SessionFactory)
    assert is_one(given, AsyncSessionFactory)


def test_an_implementation_is_nominal() -> None:
    """A class that names the interface as its base has only its own instances."""

    class Own(SessionFactory):
        def __call__(self) -> Session:
            raise NotImplementedError

        def begin(self) -> Any:
            raise NotImplementedError

    assert isinstance(Own(), Own)
    assert isinstance(Own(), SessionFactory)
    assert not isinstance(sessionmaker(), Own)


class Model(BaseModel):
    """A model of pydantic that holds factories."""

    model_config = ConfigDict(arbitrary_types_allowed=True)
    sessions: SessionFactory
    own: SessionFactory[Session] | None = None
    others: AsyncSessionFactory | None = None


def test_pydantic() -> None:
    """A model takes factories of the right half, as they are, and refuses the other half."""
    sessions, others = sessionmaker(), async_sessionmaker()

    model = Model(sessions=sessions, own=sessions, others=others)

    assert model.sessions is sessions
    assert model.others is others
    with pytest.raises(ValidationError):
        Model.model_validate({"sessions": others})


class Struct(msgspec.Struct):
    """A struct of msgspec that holds factories."""

    sessions: SessionFactory
    others: AsyncSessionFactory


def test_msgspec() -> None:
    """A conversion takes factories of the right half, and refuses the other half."""
    sessions, others = sessionmaker(), async_sessionmaker()

    struct = msgspec.convert({"sessions": sessions, "others": others}, Struct)

    assert struct.sessions is sessions
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"sessions": others, "others": others}, Struct)


def test_beartype() -> None:
    """A checked function takes factories of the right half, and refuses the other half."""

    @beartype
    def use(sessions: SessionFactory) -> SessionFactory:
        return sessions

    untyped: Any = use
    sessions = sessionmaker()
    assert use(sessions) is sessions
    with pytest.raises(BeartypeCallHintParamViolation):
        untyped(async_sessionmaker())


def test_fast_depends() -> None:
    """FastStream's injection gives the factory that was provided, and refuses the other half."""

    def one() -> Any:
        return sessionmaker()

    def other() -> Any:
        return async_sessionmaker()

    @inject
    def right(sessions: Annotated[SessionFactory, Depends(one)]) -> object:
        return sessions

    @inject
    def wrong(sessions: Annotated[SessionFactory, Depends(other)]) -> object:
        return sessions

    call: Any = right
    assert isinstance(call(), sessionmaker)
    call = wrong
    with pytest.raises(InjectionError):
        call()


@pytest.mark.filterwarnings("ignore:.*NamedDependency")
def test_litestar() -> None:
    """A handler of Litestar gets the factory of either half."""

    def one() -> Any:
        return sessionmaker()

    def other() -> Any:
        return async_sessionmaker()

    @get("/", sync_to_thread=False)
    def handler(sessions: SessionFactory, others: AsyncSessionFactory) -> list[str]:
        return [type(sessions).__name__, type(others).__name__]

    app = Litestar(
        [handler],
        dependencies={
            "sessions": Provide(one, sync_to_thread=False),
            "others": Provide(other, sync_to_thread=False),
        },
    )
    with TestClient(app) as client:
        response = client.get("/")

    assert response.status_code == 200
    assert response.json() == ["sessionmaker", "async_sessionmaker"]
