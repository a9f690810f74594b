from collections.abc import Callable

class Signal:
    def connect(
        self, receiver: Callable[..., object], *, weak: bool = True
    ) -> Callable[..., object]: ...

worker_process_shutdown: Signal
worker_shutdown: Signal
