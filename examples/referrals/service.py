"""The service: it gets a `SessionFactory`, and does not depend on where that comes from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define, frozen
from sqlalchemy import func, select
from sqlalchemy.orm import aliased

from examples.referrals.models import User
from sessionfactory import on_commit, run_in_transaction

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.orm import Session

    from sessionfactory import SessionFactory


class UnknownCodeError(Exception):
    """No user has this referral code."""


@frozen(kw_only=True)
class SignUp:
    """A person who signs up, perhaps with the code of the user who referred them."""

    email: str
    code: str
    referred_by: str | None = None


@define
class Referrals:
    """Signs users up; each call is one transaction.

    Args:
        sessions: opens the sessions.
        welcome: called with each new user's address, once the user is committed.
    """

    sessions: SessionFactory
    welcome: Callable[[str], None]

    def sign_up(self, person: SignUp) -> bool:
        """Write a user, and return whether they are new.

        A transaction that loses a conflict with another one is rolled back and runs again.

        Raises:
            UnknownCodeError: nothing was written.
        """

        def work(session: Session) -> bool:
            if session.scalar(select(User.id).where(User.email == person.email)) is not None:
                return False
            referrer = _id_of(session, person.referred_by)
            session.add(User(email=person.email, code=person.code, referrer_id=referrer))
            on_commit(session, lambda: self.welcome(person.email))
            return True

        return run_in_transaction(self.sessions, work)


def _id_of(session: Session, code: str | None) -> int | None:
    if code is None:
        return None
    found = session.scalar(select(User.id).where(User.code == code))
    if found is None:
        raise UnknownCodeError(f"no user has the code {code}")
    return found


@define
class Leaderboard:
    """Counts referrals; a factory whose sessions only read is enough for it."""

    sessions: SessionFactory

    def top(self, limit: int = 3) -> list[tuple[str, int]]:
        """Return who referred most, best first; equal counts in the order of signing up."""
        referred = aliased(User)
        referrals = func.count(referred.id)
        query = (
            select(User.email, referrals)
            .join(referred, referred.referrer_id == User.id)
            .group_by(User.id, User.email)
            .order_by(referrals.desc(), User.id)
            .limit(limit)
        )
        with self.sessions() as session:
            return [(email, count) for email, count in session.execute(query)]
