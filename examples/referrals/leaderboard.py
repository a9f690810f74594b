"""The leaderboard: a read-only service, which in the program is handed `registry.reader()`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define, frozen
from sqlalchemy import func, select
from sqlalchemy.orm import aliased

from examples.referrals.models import User

if TYPE_CHECKING:
    from sessionfactory import SessionFactory


@frozen
class Standing:
    """One line of the leaderboard."""

    place: int
    email: str
    referrals: int


@define
class Leaderboard:
    """Counts who referred how many."""

    sessions: SessionFactory

    def top(self, limit: int = 10) -> list[Standing]:
        """Return who referred most, best first; equal counts share a place.

        Among equals the earlier sign-up stands first, then the lower code: codes are unique, and
        made of characters that every collation sorts alike, so the order is the same everywhere.
        """
        referred = aliased(User)
        referrals = func.count(referred.id)
        query = (
            select(func.rank().over(order_by=referrals.desc()), User.email, referrals)
            .join(referred, referred.referrer_id == User.id)
            .group_by(User.id, User.email, User.signed_up_on, User.code)
            .order_by(referrals.desc(), User.signed_up_on, User.code)
            .limit(limit)
        )
        with self.sessions() as session:
            return [Standing(*row) for row in session.execute(query)]
