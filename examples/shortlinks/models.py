"""The one table: links, each with its code and how often it was followed."""

from __future__ import annotations

from sqlalchemy import String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

TARGET_LENGTH = 500
CODE_LENGTH = 8


class Base(DeclarativeBase):
    """The metadata of the example's tables."""


class Link(Base):
    """A target, and the code that leads there; the database refuses a second code for a target."""

    __tablename__ = "short_links"

    code: Mapped[str] = mapped_column(String(CODE_LENGTH), primary_key=True)
    target: Mapped[str] = mapped_column(String(TARGET_LENGTH), unique=True)
    followed: Mapped[int] = mapped_column(default=0)
