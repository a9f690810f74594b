"""The program, and its composition root: `python -m examples.referrals`.

It writes to the database in `DATABASE_URL`; without that, to a SQLite file in the current folder.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from examples.referrals.models import Base, User
from examples.referrals.service import Leaderboard, Referrals, SignUp, UnknownCodeError
from sessionfactory import ReadOnlyError, SessionFactoryRegistry

if TYPE_CHECKING:
    from collections.abc import Mapping

EMBEDDED: Final = "sqlite:///referrals.db"
PEOPLE: Final = (
    SignUp(email="ada@example.org", code="ADA1"),
    SignUp(email="grace@example.org", code="GRACE1", referred_by="ADA1"),
    SignUp(email="edsger@example.org", code="EDSGER1", referred_by="ADA1"),
    SignUp(email="barbara@example.org", code="BARBARA1", referred_by="GRACE1"),
    SignUp(email="niklaus@example.org", code="NIKLAUS1", referred_by="NOBODY"),
)


def environment() -> Mapping[str, str]:
    """Return the process's environment, with the embedded database where it names none."""
    if os.environ.get("DATABASE_URL") or os.environ.get("DATABASE_URL_FILE"):
        return os.environ
    return {**os.environ, "DATABASE_URL": EMBEDDED}


def main() -> None:
    """Sign some people up, print who referred most, and show what the factories guard."""
    with SessionFactoryRegistry.from_env(environment()) as registry:
        print("database:", registry.engine().url.render_as_string(hide_password=True))
        Base.metadata.create_all(registry.engine())

        service = Referrals(registry.get(), lambda email: print(f"  welcome, {email}"))
        for person in PEOPLE:
            try:
                if not service.sign_up(person):
                    print(f"  {person.email} has signed up before")
            except UnknownCodeError as error:
                print(f"  {person.email} is refused, and nothing is written: {error}")

        reader = registry.reader()
        for email, count in Leaderboard(reader).top():
            print(f"{count:>3}  {email}")

        try:
            with reader.begin() as session:
                session.add(User(email="write@example.org", code="WRITE1"))
        except ReadOnlyError as error:
            print(f"a reader refuses to write: {error}".splitlines()[0])

        print("pool:", registry.status()["default"])


if __name__ == "__main__":
    main()
