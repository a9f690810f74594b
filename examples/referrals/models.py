"""The one table: users, each with a referral code and perhaps the user who referred them."""

from __future__ import annotations

from datetime import date  # noqa: TC003 - SQLAlchemy evaluates the annotations when mapping

from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

EMAIL_LENGTH = 254
CODE_LENGTH = 16


class Base(DeclarativeBase):
    """The metadata of the example's tables."""


class User(Base):
    """Somebody who signed up.

    The database itself refuses a second user with the same e-mail address or code, so that two
    imports running side by side cannot sign anybody up twice.
    """

    # Not plain "users": the example may be pointed at a database that has such a table already.
    __tablename__ = "referral_users"

    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(String(EMAIL_LENGTH), unique=True)
    code: Mapped[str] = mapped_column(String(CODE_LENGTH), unique=True)
    signed_up_on: Mapped[date]
    referrer_id: Mapped[int | None] = mapped_column(ForeignKey("referral_users.id"), index=True)

    referrer: Mapped[User | None] = relationship(remote_side=lambda: User.id)
