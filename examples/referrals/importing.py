"""The import: rows in, one outcome for each row out, so that nothing can get lost between."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from examples.referrals.signups import Outcome, SignUp

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from examples.referrals.service import ReferralService


def import_sign_ups(
    rows: Iterable[SignUp | Outcome], service: ReferralService, *, batch_size: int = 50
) -> Iterator[Outcome]:
    """Write the sign-ups among `rows` and yield one outcome for each row, in their order.

    Each batch of rows is one transaction. If one fails, those before it stay written, and running
    the import again writes the rest.
    """
    remaining = iter(rows)
    while batch := list(islice(remaining, batch_size)):
        outcomes = [row for row in batch if isinstance(row, Outcome)]
        outcomes += service.register([row for row in batch if isinstance(row, SignUp)])
        yield from sorted(outcomes, key=lambda outcome: outcome.line)
