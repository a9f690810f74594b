"""The one table: users, each with a referral code and perhaps the user who referred them."""

from __future__ import annotations

from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    """The metadata of the example's tables."""


class User(Base):
    """A user; the database refuses a second one with the same e-mail address or code."""

    # Not plain "users": the example may run on a database that has such a table already.
    __tablename__ = "referral_users"

    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(String(254), unique=True)
    code: Mapped[str] = mapped_column(String(16), unique=True)
    referrer_id: Mapped[int | None] = mapped_column(ForeignKey("referral_users.id"), index=True)
