from collections.abc import Callable, Mapping, Sequence
from typing import ParamSpec, TypeVar

from celery.result import AsyncResult

P = ParamSpec("P")
R = TypeVar("R")

class Settings:
    broker_transport_options: Mapping[str, object]
    broker_connection_retry_on_startup: bool
    task_acks_late: bool
    task_always_eager: bool
    task_eager_propagates: bool

class Task:
    name: str

class Celery:
    conf: Settings
    def __init__(self, main: str | None = None, *, broker: str | None = None) -> None: ...
    def task(self, *, name: str | None = None) -> Callable[[Callable[P, R]], Callable[P, R]]: ...
    def send_task(self, name: str, args: Sequence[object] | None = None) -> AsyncResult: ...
