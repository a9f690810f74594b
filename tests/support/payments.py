"""The work that tests have done: payments, and what goes wrong with them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.orm import Session

    from sessionfactory.testing import PostgresServer

PAY: Final = text("INSERT INTO paid VALUES (1)")


class Base(DeclarativeBase):
    """The tables that are mapped here."""


class Paid(Base):
    """A payment, as an object."""

    __tablename__ = "paid"
    amount: Mapped[int] = mapped_column(primary_key=True)


def pay(session: Session) -> None:
    """Do the least work that can be lost."""
    session.execute(PAY)


def rows(server: PostgresServer) -> int:
    """Return how many payments are committed."""
    return int(server.execute("SELECT count(*) FROM paid"))


def failing(session: Session, code: str) -> None:
    """Have PostgreSQL raise an error of this code."""
    session.execute(text(f"DO $$ BEGIN RAISE EXCEPTION 'told to' USING ERRCODE = '{code}'; END $$"))


def in_conflict_once() -> Callable[[Session], int]:
    """Return work that pays, meets a conflict the first time, and counts how often it was done."""
    calls: list[int] = []

    def work(session: Session) -> int:
        calls.append(1)
        session.execute(PAY)
        if len(calls) == 1:
            failing(session, "40001")
        return len(calls)

    return work


def fail_at_commit(server: PostgresServer, code: str) -> None:
    """Have PostgreSQL raise an error of this code when a row of ``paid`` is committed."""
    server.execute(f"""
        CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON paid DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION fail('{code}')
    """)
