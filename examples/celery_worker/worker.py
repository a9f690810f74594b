"""What `celery --app examples.celery_worker.worker` looks for."""

from __future__ import annotations

from examples.celery_worker.app import make_program

app = make_program().celery
