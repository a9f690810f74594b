"""The service: it is given a factory, and a function that tells others of a new order."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from attrs import define
from sqlalchemy import func, select

from examples.celery_worker.models import Order
from sessionfactory import on_commit, run_in_transaction

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.orm import Session

    from sessionfactory import SessionFactory


@define
class Orders:
    """Takes orders and confirms them. One object serves all threads and processes."""

    sessions: SessionFactory

    def take(self, article: str, then: Callable[[int], object]) -> int:
        """Take an order, and call a function with its number once it is committed.

        A worker that is told of it earlier may look before there is anything to see.
        """
        with self.sessions.begin() as session:
            order = Order(article=article)
            session.add(order)
            session.flush()
            on_commit(session, partial(then, order.id))
            return order.id

    def confirm(self, number: int) -> bool:
        """Confirm an order; return whether it was this call. A task may be delivered twice."""

        def work(session: Session) -> bool:
            order = session.get_one(Order, number, with_for_update=True)
            first = not order.confirmed
            order.confirmed = True
            return first

        # A conflict, or a connection that is lost, is tried again here and not by the broker.
        return run_in_transaction(self.sessions, work)

    def confirmed(self) -> int:
        """Return how many orders are confirmed."""
        query = select(func.count()).select_from(Order).where(Order.confirmed)
        with self.sessions() as session:
            return session.scalar(query) or 0
