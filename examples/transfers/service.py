"""The service: it moves money once, whatever happens to the database meanwhile."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

from attrs import define, frozen
from sqlalchemy import select, update

from examples.transfers.models import Account, Transfer
from sessionfactory import run_in_transaction

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from sessionfactory import SessionFactory


class OverdrawnError(Exception):
    """There is less in an account than was to be taken from it."""


@frozen(kw_only=True)
class Order:
    """What is to be moved; the reference is the customer's."""

    reference: str
    source: int
    target: int
    amount: int


@frozen
class Books:
    """What an auditor sees."""

    total: int
    """All money in all accounts."""
    references: Counter[str]
    """How often each reference stands in the journal."""


@define
class Bank:
    """Keeps accounts; it knows the interface of a session factory only."""

    sessions: SessionFactory

    def open_accounts(self, numbers: range, balance: int) -> None:
        """Open accounts with some money in each."""
        with self.sessions.begin() as session:
            session.add_all(Account(number=number, balance=balance) for number in numbers)

    def transfer(self, order: Order) -> None:
        """Move money, exactly once.

        Two orders in opposite directions wait for each other: the database ends one of them, and
        that one is done again. So is one whose connection is lost. If it is lost during COMMIT, the
        marker tells whether the money has moved.
        """
        work = partial(_move, order=order)
        run_in_transaction(self.sessions, work, attempts=None, timeout=60, verify_commit="marker")

    def books(self) -> Books:
        """Return what the database knows."""
        with self.sessions() as session:
            balances = session.scalars(select(Account.balance)).all()
            references = session.scalars(select(Transfer.reference)).all()
        return Books(sum(balances), Counter(references))


def _move(session: Session, order: Order) -> None:
    taken = session.scalar(
        update(Account)
        .where(Account.number == order.source, Account.balance >= order.amount)
        .values(balance=Account.balance - order.amount)
        .returning(Account.number)
    )
    if taken is None:
        raise OverdrawnError(f"account {order.source} has less than {order.amount}")
    session.execute(
        update(Account)
        .where(Account.number == order.target)
        .values(balance=Account.balance + order.amount)
    )
    session.add(
        Transfer(
            reference=order.reference,
            source=order.source,
            target=order.target,
            amount=order.amount,
        )
    )
