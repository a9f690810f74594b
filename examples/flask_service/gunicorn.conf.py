"""Settings of gunicorn: four workers, forked from one that has loaded the application."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from sessionfactory.ext.flask import registry_of

if TYPE_CHECKING:
    from flask import Flask

preload_app = True
workers = 4
threads = 4


class Worker(Protocol):
    """What is used of gunicorn's worker."""

    wsgi: Flask


def worker_exit(_server: object, worker: Worker) -> None:
    """Close the connections of a worker that ends; its requests have ended."""
    registry_of(worker.wsgi).close()
