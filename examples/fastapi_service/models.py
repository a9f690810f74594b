"""The tables."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - SQLAlchemy reads annotations

from sqlalchemy import DateTime, String, func
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

LENGTH = 200


class Base(DeclarativeBase):
    """The tables of this service; Alembic compares them with the database."""


class Note(Base):
    """A note."""

    __tablename__ = "note"

    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str] = mapped_column(String(LENGTH))
    written: Mapped[datetime] = mapped_column(DateTime, server_default=func.now())
