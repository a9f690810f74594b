"""FastAPI hands sessions from thread to thread and task to task, and none is refused for it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Generator  # noqa: TC003 - FastAPI reads annotations
from typing import TYPE_CHECKING, Annotated, Final

import httpx2
import pytest
import pytest_asyncio
from fastapi import Depends, FastAPI, Request
from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from sessionfactory import DatabaseSettings, SqlAlchemySessionFactory
from sessionfactory.sessions.guarded_session import guarded

if TYPE_CHECKING:
    from sessionfactory.testing import PostgresServer

pytestmark = pytest.mark.asyncio

REQUESTS: Final = 400


class Base(DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "shared_item_of_fastapi"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)


app = FastAPI()


def get_session(request: Request) -> Generator[Session]:
    """Run the request's transaction, in whichever threads there are."""
    with request.app.state.factory.begin() as session:
        session.info["opened"] = threading.get_ident()
        yield session


def store(number: int, session: Annotated[Session, Depends(get_session)]) -> None:
    """Do work before the request's own."""
    session.execute(insert(Item).values(id=number))


@app.post("/items/{number}", dependencies=[Depends(store)])
def post(number: int, session: Annotated[Session, Depends(get_session)]) -> bool:
    """Say whether the session came from another thread."""
    assert session.scalars(select(Item.id).where(Item.id == number)).one() == number
    return bool(session.info["opened"] != threading.get_ident())


async def get_async_session(request: Request) -> AsyncGenerator[AsyncSession]:
    """Run the request's transaction in the event loop."""
    async with request.app.state.sessions.begin() as session:
        yield session


def add(number: int, session: Annotated[AsyncSession, Depends(get_async_session)]) -> None:
    """Do work before the request's own, in a thread."""
    session.add(Item(id=number))
    session.info["added"] = threading.get_ident()


@app.post("/async/items/{number}", dependencies=[Depends(add)])
async def post_async(
    number: int, session: Annotated[AsyncSession, Depends(get_async_session)]
) -> bool:
    """Say whether the session was in another thread before."""
    await asyncio.wait_for(session.flush(), 30)
    assert (await session.scalars(select(Item.id).where(Item.id == number))).one() == number
    return bool(session.info["added"] != threading.get_ident())


@pytest.fixture
def factory(postgres_server: PostgresServer) -> Generator[SqlAlchemySessionFactory]:
    """The app's factory, on a PostgreSQL with an empty table."""
    with SqlAlchemySessionFactory(DatabaseSettings(postgres_server.url)) as made:
        Base.metadata.create_all(made.engine)
        app.state.factory = made
        yield made
        Base.metadata.drop_all(made.engine)


@pytest_asyncio.fixture(autouse=True)
async def _sessions(
    factory: SqlAlchemySessionFactory, postgres_server: PostgresServer
) -> AsyncGenerator[None]:
    """The app's guarded sessions of the async half."""
    del factory  # it makes the table
    engine = create_async_engine(postgres_server.url_for(driver="asyncpg"))
    app.state.sessions = async_sessionmaker(engine, sync_session_class=guarded(Session))
    yield
    await engine.dispose()


@pytest.mark.parametrize("path", ["/items", "/async/items"])
async def test_nobody_is_refused(factory: SqlAlchemySessionFactory, path: str) -> None:
    """Requests by eight at a time are all served, though their sessions change threads."""
    numbers = iter(range(REQUESTS))
    answers: list[httpx2.Response] = []
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://app") as client:

        async def send() -> None:
            for number in numbers:
                answers.append(await client.post(f"{path}/{number}"))  # noqa: PERF401 - shared

        async with asyncio.TaskGroup() as group:
            for _ in range(8):
                group.create_task(send())

    assert {answer.status_code for answer in answers} == {200}
    assert any(answer.json() for answer in answers)
    with factory() as session:
        assert set(session.scalars(select(Item.id))) == set(range(REQUESTS))
    assert factory.status().in_use == 0
