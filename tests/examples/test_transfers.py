"""The example `examples/transfers`: books that are exact, although their server is killed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from examples.transfers.__main__ import main
from examples.transfers.models import Base
from examples.transfers.service import Bank, Order, OverdrawnError
from sessionfactory.testing import InMemorySessionFactory

if TYPE_CHECKING:
    from collections.abc import Generator


def test_the_books_are_exact(capsys: pytest.CaptureFixture[str]) -> None:
    """The server is killed while money moves; none is made, none is lost, none moves twice."""
    assert main(["--transfers", "80", "--crashes", "1"]) == 0

    told = capsys.readouterr().out
    assert "1 crashes of the server" in told
    assert "in the accounts: 800 of 800; done twice: 0; lost: 0" in told


@pytest.fixture
def bank() -> Generator[Bank]:
    """A bank in memory, with two accounts."""
    with InMemorySessionFactory(Base.metadata) as sessions:
        bank = Bank(sessions)
        bank.open_accounts(range(1, 3), 100)
        yield bank


def test_money_moves(bank: Bank) -> None:
    """An order is carried out, and stands in the journal."""
    bank.transfer(Order(reference="rent", source=1, target=2, amount=40))

    books = bank.books()
    assert (books.total, books.references["rent"]) == (200, 1)


def test_no_account_is_overdrawn(bank: Bank) -> None:
    """An order for more than there is changes nothing."""
    with pytest.raises(OverdrawnError, match="account 1 has less than 101"):
        bank.transfer(Order(reference="car", source=1, target=2, amount=101))

    assert bank.books().references == {}
