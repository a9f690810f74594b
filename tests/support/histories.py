"""What callers were told of their transactions, compared with what the database has."""

from __future__ import annotations

import random
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from attrs import Factory, define
from sqlalchemy import text

from examples.transfers.service import Bank, Order, OverdrawnError
from sessionfactory import CommitUncertainError, run_in_transaction

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.orm import Session

    from sessionfactory import SessionFactory
    from sessionfactory.testing import FaultProxy, PostgresServer
    from sessionfactory.testing.proxy._trigger import When

SOON: Final = {"options": "-c deadlock_timeout=20ms"}
"""For a URL's query: a deadlock is noticed soon."""
WRITE: Final = text("INSERT INTO history VALUES (:token)")
TABLE: Final = "CREATE TABLE history (token text)"  # in which a token may stand twice


@define
class History:
    """The tokens that were to be written, by what the writer was told."""

    done: set[str] = Factory(set[str])
    uncertain: set[str] = Factory(set[str])

    def write(self, token: str, run: Callable[[Callable[[Session], object]], object]) -> None:
        """Write a token by a function that runs work in a transaction."""
        try:
            run(lambda session: session.execute(WRITE, {"token": token}))
        except CommitUncertainError:
            self.uncertain.add(token)
        else:
            self.done.add(token)

    def faults(self, server: PostgresServer) -> tuple[list[str], set[str], set[str]]:
        """Return the tokens that are duplicated, that are lost, and that are unknown."""
        found = Counter(server.execute("SELECT token FROM history").split())
        duplicated = [token for token, times in found.items() if times > 1]
        return duplicated, self.done - found.keys(), found.keys() - self.done - self.uncertain


def write_through_crashes(
    sessions: SessionFactory, server: PostgresServer, crashes: int, **options: Any
) -> History:
    """Have six writers write while the server crashes, and comes up again each time."""
    history, over = History(), threading.Event()
    written = threading.Semaphore(0)

    def writer(name: int) -> None:
        number = 0
        while not over.is_set():
            number += 1
            history.write(
                f"{name}-{number}",
                lambda work: run_in_transaction(
                    sessions, work, attempts=None, timeout=60, **options
                ),
            )
            written.release()

    writers = [threading.Thread(target=writer, args=(name,)) for name in range(6)]
    for thread in writers:
        thread.start()
    try:
        for _ in range(crashes):
            for _ in range(random.randint(10, 60)):
                written.acquire(timeout=30)
            server.stop("immediate")
            server.start()
    finally:
        over.set()
        for thread in writers:
            thread.join()
    return history


def move_money(
    sessions: SessionFactory, proxy: FaultProxy, server: PostgresServer, transfers: int
) -> tuple[Bank, set[str]]:
    """Have six threads move money between four accounts, under random faults of the network.

    Returns:
        the bank, and the references of the orders that were carried out.
    """
    bank, numbers, done = Bank(sessions), iter(range(transfers)), set[str]()
    bank.open_accounts(range(1, 5), 1000)

    def customer(seed: int) -> None:
        dice = random.Random(seed)
        for number in numbers:
            _disturb(dice, proxy, server)
            source, target = dice.sample(range(1, 5), 2)
            order = Order(
                reference=f"order-{number}", source=source, target=target, amount=dice.randint(1, 9)
            )
            try:
                bank.transfer(order)
            except OverdrawnError:
                continue
            done.add(order.reference)

    customers = [threading.Thread(target=customer, args=(seed,)) for seed in range(6)]
    for thread in customers:
        thread.start()
    for thread in customers:
        thread.join()
    proxy.restore()
    return bank, done


def _disturb(dice: random.Random, proxy: FaultProxy, server: PostgresServer) -> None:
    if dice.random() < 0.7:
        return
    fault = dice.choice(("cut", "cut", "cut", "reset", "kill"))
    if fault == "cut":
        when: When = dice.choice(("before", "after", "late"))
        statement = dice.choice(("COMMIT", "COMMIT", "UPDATE account", "INSERT INTO transfer"))
        proxy.cut(when, statement, delay=0.02 if when == "late" else None)
    elif fault == "reset":
        proxy.reset()
    else:
        server.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE backend_xid IS NOT NULL ORDER BY random() LIMIT 1"
        )
