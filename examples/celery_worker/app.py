"""The Celery application, and with it the composition root: it alone knows the registry."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import define
from celery import Celery
from celery.signals import worker_process_shutdown, worker_shutdown

from examples.celery_worker.models import Base
from examples.celery_worker.service import Orders
from sessionfactory import SessionFactoryRegistry

if TYPE_CHECKING:
    from collections.abc import Mapping

CONFIRM = "orders.confirm"


@define
class Program:
    """All parts, put together."""

    celery: Celery
    registry: SessionFactoryRegistry
    orders: Orders

    def create_tables(self) -> None:
        """Make the tables."""
        Base.metadata.create_all(self.registry.engine())

    def order(self, article: str) -> int:
        """Take an order; its task is sent after the commit."""
        return self.orders.take(article, lambda number: self.celery.send_task(CONFIRM, (number,)))


def make_program(environ: Mapping[str, str] = os.environ) -> Program:
    """Put the program together: configuration, factory, service, and its task.

    The registry is made before Celery forks its workers: each has its own connections. Without
    BROKER_URL, messages are files in a folder, which is enough to look around.
    """
    registry = SessionFactoryRegistry.from_env(environ, require=("default",))
    orders = Orders(registry.get())
    celery = Celery("orders", broker=environ.get("BROKER_URL", "filesystem://"))
    if "BROKER_URL" not in environ:
        folder = Path(environ.get("BROKER_FOLDER", "broker"))
        folder.mkdir(exist_ok=True)
        celery.conf.broker_transport_options = {
            "data_folder_in": str(folder),
            "data_folder_out": str(folder),
            "control_folder": str(folder / "control"),
        }
    celery.conf.task_acks_late = True
    celery.conf.broker_connection_retry_on_startup = True

    @celery.task(name=CONFIRM)
    def confirm(number: int) -> bool:
        return orders.confirm(number)

    def close(**_: object) -> None:
        registry.close()

    worker_process_shutdown.connect(close, weak=False)  # prefork: each process
    worker_shutdown.connect(close, weak=False)  # gevent, threads
    return Program(celery, registry, orders)
