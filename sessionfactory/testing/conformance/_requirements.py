"""What both conformance checks share: the table, the findings and the words for them."""

from __future__ import annotations

import inspect
import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import attrs
import sqlalchemy
from sqlalchemy import Column, MetaData, String, Table, func, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session

from sessionfactory.errors import SessionFactoryError

if TYPE_CHECKING:
    from collections.abc import Generator

    from sqlalchemy.ext.asyncio import AsyncSession
CONFORMANCE_TABLE: Final = Table(
    "sessionfactory_conformance", MetaData(), Column("token", String(32), primary_key=True)
)
NOT_MADE: Final = "what was to make the factory made a session; give its class, or lambda: sessions"


class ConformanceError(SessionFactoryError, AssertionError):
    """A session factory breaks promises; ``broken`` has a sentence for each."""

    broken: tuple[str, ...]

    def __init__(self, interface: str, broken: tuple[str, ...]) -> None:
        self.broken = broken
        count = "a promise" if len(broken) == 1 else f"{len(broken)} promises"
        super().__init__("\n- ".join([f"This factory breaks {count} of {interface}:", *broken]))


class Base(DeclarativeBase):
    """The models of the check, apart from everybody else's."""


class Row(Base):
    """A row that the check writes; an object as well, for only those show that a session closed."""

    __table__ = CONFORMANCE_TABLE
    token: Mapped[str]


class Deliberate(Exception):  # noqa: N818 - it stands for any error
    """What the check raises in a block."""


class Broken(Exception):  # noqa: N818 - a promise, not the check
    """A promise was not kept; the message says what was seen instead."""


@attrs.define
class Attempt:
    """One transaction that is to fail, and what came of it."""

    token: str = attrs.Factory(lambda: uuid.uuid4().hex)
    row: Row = attrs.Factory(lambda self: Row(token=self.token), takes_self=True)
    session: Session | AsyncSession | None = None
    raised: BaseException | None = None

    def expect_passed_on(self, error: BaseException) -> None:
        """Expect that the error of the block came out of it."""
        expect(self.raised is not None, "the error was swallowed")
        expect(self.raised is error, f"instead it raised {_error(self.raised)}")

    def expect_closed(self) -> None:
        """Expect that the session was closed."""
        expect(self.session is not None, f"it gave no session: {_error(self.raised)}")
        expect_closed(self.session, self.row)


class Findings:
    """Collects the promises that are broken."""

    def __init__(self, interface: str) -> None:
        self._interface = interface
        self._broken: list[str] = []
        self._cause: Exception | None = None

    @contextmanager
    def about(self, promise: str) -> Generator[None]:
        """Note what goes wrong in the block."""
        try:
            yield
        except Broken as seen:
            self._broken.append(f"{promise}: {seen}")
        except Exception as error:  # noqa: BLE001 - any failure is a finding
            self._cause = self._cause or error
            self._broken.append(f"{promise}: it raised {_error(error)}")

    def tell(self) -> None:
        """Raise ``ConformanceError`` if anything was found; the first error seen is its cause."""
        if self._broken:
            raise ConformanceError(self._interface, tuple(self._broken)) from self._cause


def expect(kept: bool, seen: str) -> None:  # noqa: FBT001 - reads like an assertion
    """Raise unless the promise is kept."""
    if not kept:
        raise Broken(seen)


def expect_closed(session: Session | AsyncSession | None, row: Row) -> None:
    """Expect that a session was closed after it had ``row``; a closed session has no objects."""
    assert session is not None  # noqa: S101 - for the type checkers
    expect(not session.in_transaction(), "it was still in a transaction, and held a connection")
    expect(row not in session, "it had let its connection go, but still held its objects")


def raise_if_given(error: BaseException | None) -> None:
    """Raise the error that a block is to raise, if there is one."""
    if error is not None:
        raise error


def new_row() -> tuple[str, Row]:
    """Return a row that nobody has written yet, and its key: an expired row cannot be asked."""
    token = uuid.uuid4().hex
    return token, Row(token=token)


def has_rows(session: Session, tokens: tuple[str, ...]) -> bool:
    """Return whether all of these rows are there."""
    query = select(func.count()).where(CONFORMANCE_TABLE.c.token.in_(tokens))
    return session.scalar(query) == len(tokens)


def make_table(session: Session) -> bool:
    """Make the table, and return whether that was needed."""
    connection = session.connection()
    missing = not sqlalchemy.inspect(connection).has_table(CONFORMANCE_TABLE.name)
    if missing:
        CONFORMANCE_TABLE.create(connection)
    return missing


def remove_table(session: Session) -> bool:
    """Remove the table, and return that."""
    CONFORMANCE_TABLE.drop(session.connection(), checkfirst=True)
    return True


def kind_of(value: object) -> str:
    """Return what a factory gave that is of the wrong kind, and which check is for such."""
    name = type(value).__name__
    if inspect.iscoroutine(value):
        value.close()  # else a warning that nobody awaited it
    if isinstance(value, Session):
        return f"{name}; check_session_factory is for sync factories"
    if inspect.iscoroutine(value) or hasattr(value, "__aenter__"):  # an AsyncSession, too
        return f"{name}; check_async_session_factory is for async factories"
    return name


def _error(error: BaseException | None) -> str:
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
