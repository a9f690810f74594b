"""The service: it is given factories, and does not care where they come from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define
from sqlalchemy import select

from examples.flask_service.models import Entry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sessionfactory import SessionFactory


@define
class GuestBook:
    """Signs a guest in. One object serves all threads."""

    sessions: SessionFactory
    reader: SessionFactory

    def sign(self, name: str) -> int:
        """Write a name; it is committed when this returns."""
        with self.sessions.begin() as session:
            entry = Entry(name=name)
            session.add(entry)
            session.flush()
            return entry.id

    def latest(self, limit: int = 20) -> Sequence[Entry]:
        """Return the latest entries; they can be read when their session is closed."""
        with self.reader() as session:
            return session.scalars(select(Entry).order_by(Entry.id.desc()).limit(limit)).all()
