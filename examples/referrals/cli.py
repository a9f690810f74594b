"""The command line, and with it the composition root: the only place that knows the registry."""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from examples.referrals.importing import import_sign_ups
from examples.referrals.leaderboard import Leaderboard, Standing
from examples.referrals.models import Base
from examples.referrals.progress import Progress
from examples.referrals.reading import HEADER, SignUpFileError, open_sign_ups
from examples.referrals.service import ReferralService
from examples.referrals.signups import Outcome, Status
from sessionfactory import SessionFactoryError, SessionFactoryRegistry

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

SHIPPED = Path(__file__).with_name("sign-ups.csv")
EMBEDDED = "referrals.db"

DESCRIPTION = f"""\
Import sign-ups from a CSV file and print who referred most.

The file starts with the header {",".join(HEADER)}. Rows that cannot be
used are reported with their line and skipped. Nobody is signed up twice, however often
a file is imported.
"""
EPILOG = f"""\
environment:
  DATABASE_URL  the database to write to; without it, the SQLite file {EMBEDDED}
                in the current directory

exit status:
  0  the file was imported; rows that were rejected have been reported
  1  the database failed; batches written before are kept, so run it again
  2  the file, the configuration or the command line is not usable
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.referrals",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "file", nargs="?", type=Path, default=SHIPPED, help="default: the one shipped beside it"
    )
    try:
        run(parser.parse_args(argv).file)
    except (SignUpFileError, SessionFactoryError) as error:
        return _failed(str(error), 2)
    except SQLAlchemyError as error:
        # The driver's own words, on one line; SQLAlchemy would add the statement and its values.
        cause = error.orig if isinstance(error, DBAPIError) else error
        return _failed(" ".join(str(cause).split()), 1)
    return 0


def run(file: Path) -> None:
    """Put the program together: configuration, factories, services, and what is printed."""
    # The file first: if it is not usable, no database should be opened, let alone made.
    with open_sign_ups(file) as rows, SessionFactoryRegistry.from_env(_environment()) as registry:
        print(f"Database: {registry.engine().url.render_as_string(hide_password=True)}")
        Base.metadata.create_all(registry.engine())
        service = ReferralService(registry.get())
        with Progress(sys.stderr) as progress:
            _report(import_sign_ups(rows, service), progress)
        _print_leaderboard(Leaderboard(registry.reader()).top())


def _environment() -> Mapping[str, str]:
    # An empty variable counts as unset, here as in the registry.
    if os.environ.get("DATABASE_URL") or os.environ.get("DATABASE_URL_FILE"):
        return os.environ
    print(f"DATABASE_URL is not set: using the embedded SQLite file {EMBEDDED} in this directory.")
    return {**os.environ, "DATABASE_URL": f"sqlite:///{EMBEDDED}"}


def _report(outcomes: Iterable[Outcome], progress: Progress) -> None:
    counts = Counter[Status]()
    for outcome in outcomes:
        counts[outcome.status] += 1
        if outcome.reason:
            progress.message(f"line {outcome.line}: {outcome.status.value}: {outcome.reason}")
        progress.show(f"{counts.total()} rows read")
    progress.message(f"{counts.total()} rows read")
    known = counts[Status.KNOWN]
    print(
        f"Of {counts.total()} rows: {counts[Status.ACCEPTED]} accepted, "
        f"{counts[Status.REJECTED]} rejected, {counts[Status.DUPLICATE] + known} duplicates"
        + (f" ({known} of them written by another run)" if known else "")
    )


def _print_leaderboard(standings: Sequence[Standing]) -> None:
    print("\nLeaderboard" if standings else "\nNobody has referred anybody yet.")
    for standing in standings:
        print(f"{standing.place:>5}.  {standing.referrals:>4}  {standing.email}")


def _failed(message: str, status: int) -> int:
    print(f"referrals: {message}", file=sys.stderr)
    return status
