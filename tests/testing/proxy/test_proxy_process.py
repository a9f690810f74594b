"""The proxy's process, when it or its parent is in trouble."""

from __future__ import annotations

import os
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import TYPE_CHECKING, NoReturn

import pytest

from sessionfactory.testing.proxy import _control
from sessionfactory.testing.proxy._engine.sockets import push
from sessionfactory.testing.proxy.fault_proxy import FaultProxy

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

NOWHERE = "postgresql://127.0.0.1:1"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Generator[FaultProxy]:
    """A proxy whose process is given up soon."""
    with FaultProxy(NOWHERE) as proxy:
        monkeypatch.setattr(_control, "_PATIENCE", 0.05)
        yield proxy


def until(condition: Callable[[], object]) -> None:
    """Return when this has come true."""
    deadline = monotonic() + 5
    while not condition():
        assert monotonic() < deadline


def test_ctrl_c_does_not_reach_the_process() -> None:
    """An interrupt from the terminal, which goes to the whole group, leaves the proxy alone."""
    with FaultProxy("postgresql://127.0.0.1:1") as proxy:
        proxy._control._process.send_signal(signal.SIGINT)
        proxy.latency = 0.001
        assert proxy.connections == 0


def test_process_that_dies_is_told() -> None:
    """If the proxy's process is killed, the next call says so, with its status."""
    with FaultProxy("postgresql://127.0.0.1:1") as proxy:
        proxy._control._process.kill()
        for _ in range(2):
            with pytest.raises(RuntimeError, match=r"has ended by itself \(status -9\)"):
                proxy.black_hole()


def test_process_that_dies_while_somebody_waits() -> None:
    """If the process dies with something left unread, who waits for a trigger is told."""
    with FaultProxy(NOWHERE) as proxy:
        trigger = proxy.cut("before", "COMMIT")
        process = proxy._control._process
        process.send_signal(signal.SIGSTOP)
        proxy._control._socket.sendall(b"unread")
        process.kill()
        process.wait()
        with pytest.raises(RuntimeError, match=r"has ended by itself \(status -9\)"):
            trigger.wait()


def test_process_that_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the process ends before it listens, the constructor says so, and leaves nothing behind."""
    monkeypatch.setattr(_control, "_START", "raise SystemExit(3)")
    with pytest.raises(RuntimeError, match=r"has ended by itself \(status 3\)"):
        FaultProxy(NOWHERE)


def test_proxy_that_cannot_be_set_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the first command fails, the constructor ends the process."""

    def fail(*_: object, **__: object) -> NoReturn:
        raise RuntimeError("no")

    monkeypatch.setattr(_control.Control, "request", fail)
    with pytest.raises(RuntimeError, match="no"):
        FaultProxy(NOWHERE)


def test_process_that_hangs_is_killed(impatient: FaultProxy) -> None:
    """A process that does not answer is an error for commands, and no obstacle for close."""
    process = impatient._control._process
    process.send_signal(signal.SIGSTOP)
    with pytest.raises(RuntimeError, match=r"has not answered for 0\.05 s"):
        impatient.black_hole()
    impatient.close()
    assert process.returncode == -signal.SIGKILL


def test_waiting_beside_another_thread() -> None:
    """Each thread that waits keeps its own time, and close wakes up all of them."""
    with FaultProxy(NOWHERE) as proxy, ThreadPoolExecutor(1) as threads:
        trigger = proxy.cut("before", "COMMIT")
        other = threads.submit(trigger.wait, 30)
        until(lambda: proxy._control._reading)
        assert not proxy._control.wait(lambda: False, 0.01)
        proxy.close()
        with pytest.raises(RuntimeError, match="this FaultProxy is closed"):
            other.result()


def test_port_that_was_taken() -> None:
    """If another process took the port meanwhile, restore fails and names it."""
    with FaultProxy(NOWHERE) as proxy, socket.socket() as thief:
        proxy.refuse()
        thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        thief.bind(("127.0.0.1", proxy.port))
        thief.listen()
        with pytest.raises(RuntimeError, match=r"could not obey 'mode': OSError: .*in use"):
            proxy.restore()


def test_command_that_finds_a_newcomer_waiting() -> None:
    """A command that is obeyed before a newcomer is accepted holds for the newcomer as well."""
    with FaultProxy(NOWHERE) as proxy:
        pid = proxy._control._process.pid
        os.kill(pid, signal.SIGSTOP)
        proxy._control._socket.sendall(b'{"id": 0, "do": "mode", "mode": "refuse"}\n')
        with socket.create_connection(("127.0.0.1", proxy.port)) as newcomer:
            os.kill(pid, signal.SIGCONT)
            with pytest.raises(ConnectionResetError):
                newcomer.recv(1)
        assert proxy.connections == 0


def test_process_whose_answers_nobody_reads() -> None:
    """If the parent cannot be answered any more, the process ends."""
    proxy = FaultProxy(NOWHERE)
    control = proxy._control
    control._socket.shutdown(socket.SHUT_RD)
    control._socket.sendall(b'{"id": 0, "do": "read"}\n')
    assert control._process.wait(5) == 0
    proxy.close()


def test_socket_that_takes_no_more() -> None:
    """What a socket does not take waits, in order."""
    sender, receiver = socket.socketpair()
    with sender, receiver:
        sender.setblocking(False)
        waiting = bytearray()
        push(sender, waiting, b"x" * 10_000_000)
        before = len(waiting)
        push(sender, waiting, b"y")
        assert len(waiting) == before + 1
        assert waiting[-2:] == b"xy"
