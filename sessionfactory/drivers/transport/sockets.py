"""What can be done with the descriptor of a connection's socket, whatever the driver."""

from __future__ import annotations

import os
import select
import socket
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def public_fileno(handle: Any) -> int | None:
    """Return the descriptor of a connection that has a method ``fileno``."""
    fileno = getattr(handle, "fileno", None)
    return None if fileno is None else int(fileno())


def listener(_handle: Any, descriptor: int) -> Callable[[], object]:
    """Return a function whose result is true if a socket has news; half a microsecond a call."""
    if not hasattr(select, "poll"):  # on Windows
        return lambda: False
    poll = select.poll()
    poll.register(descriptor, select.POLLIN | select.POLLPRI)
    return partial(poll.poll, 0)


def shut_down(_handle: Any, descriptor: int | None) -> None:
    """Shut a socket down in both directions, which wakes up every thread that waits for it."""
    if descriptor is not None:
        with socket.socket(fileno=os.dup(descriptor)) as line:
            line.shutdown(socket.SHUT_RDWR)


def replace(_handle: Any, descriptor: int | None, dead: int) -> None:
    """Make a descriptor a copy of another, in this process only."""
    if descriptor is not None:
        os.dup2(dead, descriptor, inheritable=False)


def is_local(descriptor: int | None) -> bool:
    """Return whether a descriptor is a socket of this machine's file system."""
    if descriptor is None:
        return False
    with socket.socket(fileno=os.dup(descriptor)) as line:
        return line.family not in {socket.AF_INET, socket.AF_INET6}
