"""The service: it is handed a `SessionFactory` and does not care where that comes from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define
from sqlalchemy import or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import joinedload

from examples.referrals.models import User
from examples.referrals.signups import Outcome, SignUp, Status

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sqlalchemy.orm import Session

    from sessionfactory import SessionFactory


@define
class ReferralService:
    """Signs people up and records who referred them."""

    sessions: SessionFactory

    def register(self, batch: Sequence[SignUp]) -> list[Outcome]:
        """Write a batch in one transaction, and return one outcome for each of its sign-ups.

        Nobody is signed up twice, however often they are registered. A referrer has signed up
        before, or stands further up in the batch.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the database failed; nothing of the batch was written.
        """
        try:
            return self._write(batch)
        except IntegrityError:
            # Somebody else signed up one of these people between our look and our write, and the
            # database refused the second one. This look sees them.
            return self._write(batch)

    def _write(self, batch: Sequence[SignUp]) -> list[Outcome]:
        with self.sessions.begin() as session:
            users = _mentioned(session, batch)
            by_email = {user.email: user for user in users}
            by_code: dict[str | None, User] = {user.code: user for user in users}
            outcomes: list[Outcome] = []
            for sign_up in batch:
                outcome = _judged(sign_up, by_email, by_code)
                outcomes.append(outcome)
                if outcome.status is Status.ACCEPTED:
                    user = User(
                        email=sign_up.email,
                        code=sign_up.code,
                        signed_up_on=sign_up.signed_up_on,
                        referrer=by_code.get(sign_up.referred_by),
                    )
                    session.add(user)
                    by_email[user.email] = by_code[user.code] = user
            return outcomes


def _mentioned(session: Session, batch: Sequence[SignUp]) -> Iterable[User]:
    """Find the users that a batch has anything to do with, in one query."""
    emails = {sign_up.email for sign_up in batch}
    codes = {code for sign_up in batch for code in (sign_up.code, sign_up.referred_by) if code}
    return session.scalars(
        select(User)
        .where(or_(User.email.in_(emails), User.code.in_(codes)))
        .options(joinedload(User.referrer))
    ).all()


def _judged(
    sign_up: SignUp, by_email: Mapping[str, User], by_code: Mapping[str | None, User]
) -> Outcome:
    same = by_email.get(sign_up.email)
    if same is not None and _recorded(same) == sign_up:
        return Outcome(sign_up.line, Status.KNOWN)
    if same is not None:
        reason = f"{same.email} has signed up already, with the code {same.code}"
        return Outcome(sign_up.line, Status.DUPLICATE, reason)
    if sign_up.code in by_code:
        reason = f"the code {sign_up.code} belongs to somebody else"
        return Outcome(sign_up.line, Status.REJECTED, reason)
    if sign_up.referred_by and sign_up.referred_by not in by_code:
        reason = f"nobody with the code {sign_up.referred_by} has signed up"
        return Outcome(sign_up.line, Status.REJECTED, reason)
    return Outcome(sign_up.line, Status.ACCEPTED)


def _recorded(user: User) -> SignUp:
    """Put a user back into the form they signed up in, to see if a row says anything new."""
    return SignUp(
        line=0,
        email=user.email,
        code=user.code,
        referred_by=user.referrer.code if user.referrer else None,
        signed_up_on=user.signed_up_on,
    )
