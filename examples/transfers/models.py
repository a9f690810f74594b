"""Accounts, and the journal of what moved between them."""

from __future__ import annotations

from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    """The metadata of the example's tables."""


class Account(Base):
    """An account, which is never overdrawn."""

    __tablename__ = "account"

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    balance: Mapped[int]


class Transfer(Base):
    """One line of the journal. Nothing keeps a reference from standing there twice."""

    __tablename__ = "transfer"

    id: Mapped[int] = mapped_column(primary_key=True)
    reference: Mapped[str]
    source: Mapped[int]
    target: Mapped[int]
    amount: Mapped[int]
