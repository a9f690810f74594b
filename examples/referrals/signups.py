"""What is read and what becomes of it: a `SignUp` goes into the service, an `Outcome` comes out."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from attrs import field, frozen

if TYPE_CHECKING:
    from datetime import date


class Status(Enum):
    """What became of one row."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    DUPLICATE = "duplicate"
    KNOWN = "known"  # a duplicate that needs no report: another run wrote this very row


@frozen
class Outcome:
    """What became of the row on `line`, and for one that was refused, the reason."""

    line: int
    status: Status
    reason: str = ""


@frozen(kw_only=True)
class SignUp:
    """One well-formed row; two are equal if they say the same, whatever line they stand on."""

    line: int = field(eq=False)
    email: str
    code: str
    referred_by: str | None
    signed_up_on: date
