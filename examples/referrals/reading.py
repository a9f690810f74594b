"""Reading a CSV file: each row becomes a `SignUp`, or an `Outcome` that says why not."""

from __future__ import annotations

import csv
import re
from contextlib import contextmanager
from datetime import date
from typing import TYPE_CHECKING

from examples.referrals.models import CODE_LENGTH, EMAIL_LENGTH
from examples.referrals.signups import Outcome, SignUp, Status

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator
    from pathlib import Path

HEADER = ["email", "code", "referred_by", "signed_up_on"]

# The address pattern of HTML's <input type="email">, with at least one dot in the domain. ASCII on
# purpose, as are the codes: once their case is folded, two of them are equal here exactly if they
# are equal under every database's collation (MariaDB's default takes "josé" and "jose" as one).
_EMAIL = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]+@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+")
_CODE = re.compile(rf"[A-Za-z0-9]{{4,{CODE_LENGTH}}}")


class SignUpFileError(Exception):
    """The file as a whole cannot be used; the message says why."""


@contextmanager
def open_sign_ups(path: Path) -> Generator[Iterator[SignUp | Outcome]]:
    """Open a CSV file, check its header and yield one item for each row that is not blank.

    Raises:
        SignUpFileError: the file cannot be opened, is empty, or does not start with `HEADER`.
    """
    try:
        # Undecodable bytes are carried along, so that they cost their own row and not the file.
        file = path.open(encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise SignUpFileError(f"cannot read {path}: {error.strerror}") from error
    with file:
        _check_header(path, file.readline())
        yield _without_repeats(_rows(file))


def _check_header(path: Path, text: str) -> None:
    try:
        found = [name.strip().lower() for name in _fields(text)]
    except ValueError:
        found = []
    if found != HEADER:
        wrong = f"starts with {_shown(text.rstrip())}" if text else "is empty"
        raise SignUpFileError(
            f"{path} {wrong}, but the first line should be the header {','.join(HEADER)}"
        )


def _rows(lines: Iterable[str]) -> Iterator[SignUp | Outcome]:
    for line, text in enumerate(lines, start=2):
        if text.strip():
            try:
                yield _sign_up(line, _fields(text))
            except ValueError as error:
                yield Outcome(line, Status.REJECTED, str(error))


def _without_repeats(rows: Iterable[SignUp | Outcome]) -> Iterator[SignUp | Outcome]:
    seen: dict[SignUp, int] = {}
    for row in rows:
        if isinstance(row, SignUp) and (first := seen.setdefault(row, row.line)) != row.line:
            yield Outcome(row.line, Status.DUPLICATE, f"says the same as line {first}")
        else:
            yield row


def _fields(text: str) -> list[str]:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"not valid UTF-8: {_shown(text.rstrip())}") from None
    try:
        # No field of a sign-up may hold a line break. Parsing each line alone means that a quote
        # which is never closed costs its own row, and does not swallow those that follow.
        return next(csv.reader([text.rstrip("\n")], strict=True))
    except csv.Error as error:
        raise ValueError(f"not valid CSV: {error}") from None


def _sign_up(line: int, fields: list[str]) -> SignUp:
    if len(fields) != len(HEADER):
        raise ValueError(f"expected {len(HEADER)} columns, found {len(fields)}")
    email, code, referred_by, signed_up_on = (text.strip() for text in fields)
    if not _EMAIL.fullmatch(email) or len(email) > EMAIL_LENGTH:
        raise ValueError(f"{_shown(email)} is not an e-mail address")
    own, referrer = _code(code), _code(referred_by) if referred_by else None
    if own == referrer:
        raise ValueError(f"{email} claims to have referred themselves")
    return SignUp(
        line=line,
        email=email.lower(),
        code=own,
        referred_by=referrer,
        signed_up_on=_date(signed_up_on),
    )


def _code(text: str) -> str:
    if not _CODE.fullmatch(text):
        raise ValueError(
            f"{_shown(text)} is not a referral code (4 to {CODE_LENGTH} letters and digits)"
        )
    return text.upper()


def _date(text: str) -> date:
    try:
        day = date.fromisoformat(text)
    except ValueError:
        day = None
    # fromisoformat also reads 20250314 and 2025-W11-5, which more likely are mistakes.
    if day is None or day.isoformat() != text:
        raise ValueError(f"{_shown(text)} is not a date of the form YYYY-MM-DD")
    return day


def _shown(text: str, limit: int = 60) -> str:
    """Quote what a file holds so that it cannot garble a terminal, nor fill it."""
    return repr(text if len(text) <= limit else f"{text[:limit]}…")
