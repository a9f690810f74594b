"""factory_boy makes the data, in sessions of our factories: its ``sqlalchemy_session_factory``."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest
from factory.alchemy import SQLAlchemyModelFactory
from factory.declarations import Sequence
from sqlalchemy import func, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from sessionfactory.testing.recording.recording import RecordingSessionFactory

if TYPE_CHECKING:
    from sessionfactory import SessionFactory, SqlAlchemySessionFactory


class Base(DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "user"

    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str]


@pytest.fixture
def recorder(factory: SqlAlchemySessionFactory) -> RecordingSessionFactory:
    """What the service under test would get, on a database with the table."""
    Base.metadata.create_all(factory.engine)
    return RecordingSessionFactory(factory)


def address(number: int) -> str:
    return f"user{number}@example.org"


def users(sessions: SessionFactory) -> int:
    with sessions() as session:
        return session.scalar(select(func.count()).select_from(User)) or 0


def test_each_object_in_a_session_of_its_own(recorder: RecordingSessionFactory) -> None:
    """A session factory is what the option asks for; each object is committed by itself."""

    class UserFactory(SQLAlchemyModelFactory):
        class Meta:  # pyright: ignore[reportIncompatibleVariableOverride]
            model = User
            sqlalchemy_session_factory = recorder
            sqlalchemy_session_persistence = "commit"

        email = Sequence(address)  # type: ignore[no-untyped-call]

    made = cast("list[User]", UserFactory.create_batch(3))

    assert [user.email for user in made] == [address(number) for number in range(3)]
    assert recorder.recording.sessions == recorder.recording.commits == 3, recorder.recording
    assert users(recorder) == 3


def test_all_objects_in_one_transaction(recorder: RecordingSessionFactory) -> None:
    """Objects that refer to each other need one session, which the test opens and closes."""
    with recorder.begin() as session:

        class UserFactory(SQLAlchemyModelFactory):
            class Meta:  # pyright: ignore[reportIncompatibleVariableOverride]
                model = User
                sqlalchemy_session_factory = lambda: session  # noqa: E731 - the option's way

            email = Sequence(address)  # type: ignore[no-untyped-call]

        UserFactory.create_batch(3)

    assert recorder.recording.transactions == 1, recorder.recording
    assert recorder.recording.closed == 1, recorder.recording
    assert users(recorder) == 3
