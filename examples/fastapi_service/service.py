"""The service: it is given factories, and does not care where they come from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define
from sqlalchemy import select

from examples.fastapi_service.models import Note

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from sessionfactory import AsyncSessionFactory


@define
class Notes:
    """Writes notes and reads them. One object serves all tasks."""

    sessions: AsyncSessionFactory
    reader: AsyncSessionFactory

    async def write(self, text: str) -> int:
        """Write a note; it is committed when this returns."""
        async with self.sessions.begin() as session:
            note = Note(text=text)
            session.add(note)
            await session.flush()
            return note.id

    async def read(self, number: int) -> Note | None:
        """Return a note, or `None`; it can be read when its session is closed."""
        async with self.reader() as session:
            return await session.get(Note, number)

    async def after(self, number: int, limit: int = 100) -> Sequence[Note]:
        """Return the notes that follow a number."""
        query = select(Note).where(Note.id > number).order_by(Note.id).limit(limit)
        async with self.reader() as session:
            return (await session.scalars(query)).all()

    async def lines(self) -> AsyncIterator[str]:
        """Yield all notes as text, a page at a time: no connection is held between two pages."""
        last = 0
        while notes := await self.after(last):
            for note in notes:
                yield f"{note.id}\t{note.text}\n"
            last = notes[-1].id
