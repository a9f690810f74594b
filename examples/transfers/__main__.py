"""The program: customers, a bank, and somebody who kills its server."""

from __future__ import annotations

import argparse
import random
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from examples.transfers.models import Base
from examples.transfers.service import Bank, Order, OverdrawnError
from sessionfactory import DatabaseSettings, PoolSettings, SqlAlchemySessionFactory
from sessionfactory.testing import PostgresServer

if TYPE_CHECKING:
    from collections.abc import Sequence

ACCOUNTS: Final = range(1, 9)
BALANCE: Final = 100
THREADS: Final = 6


def main(arguments: Sequence[str] | None = None) -> int:
    """Move money while the server is killed, and return 0 if the books are exact."""
    parser = argparse.ArgumentParser(prog="python -m examples.transfers", description=__doc__)
    parser.add_argument("--transfers", type=int, default=600, help="how many (default: 600)")
    parser.add_argument("--crashes", type=int, default=3, help="of the server (default: 3)")
    options = parser.parse_args(arguments)
    pool = PoolSettings(size=THREADS, max_overflow=0)
    with (
        PostgresServer() as server,
        SqlAlchemySessionFactory(DatabaseSettings(server.url, pool=pool)) as sessions,
    ):
        Base.metadata.create_all(sessions.engine)
        bank = Bank(sessions)
        bank.open_accounts(ACCOUNTS, BALANCE)
        done = _run(bank, server, options.transfers, options.crashes)
        books = bank.books()
    twice = sum(1 for times in books.references.values() if times > 1)
    lost = sum(1 for reference in done if reference not in books.references)
    expected = len(ACCOUNTS) * BALANCE
    print(f"{len(done)} transfers, {options.crashes} crashes of the server")
    print(f"in the accounts: {books.total} of {expected}; done twice: {twice}; lost: {lost}")
    return 0 if (books.total, twice, lost) == (expected, 0, 0) else 1


def _run(bank: Bank, server: PostgresServer, transfers: int, crashes: int) -> list[str]:
    """Have the orders carried out by some threads; return the references of those that were."""
    done: list[str] = []

    def carry_out(number: int) -> None:
        dice = random.Random(number)  # noqa: S311 - a run is like the next
        source, target = dice.sample(ACCOUNTS, 2)
        order = Order(
            reference=f"order {number}", source=source, target=target, amount=dice.randint(1, 20)
        )
        try:
            bank.transfer(order)
        except OverdrawnError:
            return
        done.append(order.reference)

    with ThreadPoolExecutor(THREADS) as threads:
        orders = list(range(transfers))
        part = len(orders) // (crashes + 1) + 1
        running = [threads.submit(carry_out, number) for number in orders[:part]]
        for crash in range(1, crashes + 1):
            running[len(running) - part // 2].result()  # in the midst of it
            running += [
                threads.submit(carry_out, number)
                for number in orders[crash * part : (crash + 1) * part]
            ]
            server.restart("immediate")  # which no transaction that is under way survives
        for transfer in running:
            transfer.result()
    return done


if __name__ == "__main__":
    sys.exit(main())
