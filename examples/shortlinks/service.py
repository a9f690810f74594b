"""The service: it is handed an `AsyncSessionFactory` and does not care where that comes from."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from attrs import define
from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError

from examples.shortlinks.models import CODE_LENGTH, Link

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sessionfactory import AsyncSessionFactory

_BYTES = CODE_LENGTH * 3 // 4  # which base64 writes as so many letters


@define
class Links:
    """Makes links, follows them, and says which are followed most. One object serves all tasks."""

    sessions: AsyncSessionFactory
    reader: AsyncSessionFactory

    async def shorten(self, target: str) -> str:
        """Return the code of a target; the same one, however often it is asked for.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the database failed; nothing was written.
        """
        try:
            return await self._find_or_make(target)
        except IntegrityError:
            # Another task made it between our look and our write. This look sees it.
            return await self._find_or_make(target)

    async def follow(self, code: str) -> str | None:
        """Return where a code leads, and count that; `None` if there is no such code."""
        # Counted by the database: two tasks that read, add and write would lose one.
        count = update(Link).where(Link.code == code).values(followed=Link.followed + 1)
        async with self.sessions.begin() as session:
            await session.execute(count)
            link = await session.get(Link, code)
        return link.target if link else None

    async def most_followed(self, limit: int = 10) -> Sequence[Link]:
        """Return the links that were followed most; they can be read when the session is closed."""
        query = select(Link).order_by(Link.followed.desc(), Link.code).limit(limit)
        async with self.reader() as session:
            return (await session.scalars(query)).all()

    async def _find_or_make(self, target: str) -> str:
        async with self.sessions.begin() as session:
            code = await session.scalar(select(Link.code).where(Link.target == target))
            if code is None:
                code = secrets.token_urlsafe(_BYTES)
                session.add(Link(code=code, target=target))
            return code
