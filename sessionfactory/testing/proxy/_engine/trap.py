"""Traps: which message is to be the end of its connection, and in what way."""

from __future__ import annotations

import re
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_REMEMBERED = 8
_LONGEST = 60


class Trap:
    """Waits for a number of statements, and reports when it has cut them all."""

    def __init__(
        self,
        when: str,
        statement: str,
        times: int,
        delay: float | None,
        report: Callable[[str], None],
    ) -> None:
        self.when = when
        self.delay = delay
        self.sprung = 0
        """Connections cut so far."""
        self.delivered = 0
        """Statements that were delivered late, and answered by the server."""
        self.lost = 0
        """Statements that could not be delivered late: the server had gone."""
        self.passed: deque[str] = deque(maxlen=_REMEMBERED)
        """The last statements that were let pass."""
        self._held: list[Callable[[], None]] = []
        self._times = times
        self._left = times
        self._disarmed = False
        self._report = report
        words = r"\s+".join(map(re.escape, statement.rstrip("; \t\r\n").split()))
        end = r"(?!\w)" if re.search(r"\w$", words) else ""
        self._pattern = re.compile(rf"(?:^|;)\s*{words}{end}", re.IGNORECASE)

    @property
    def armed(self) -> bool:
        """Whether it has not cut all it is to cut."""
        return self.sprung < self._times and not self._disarmed

    def takes(self, statement: str) -> bool:
        """Whether this statement is to be cut; if so, it counts as one of those waited for."""
        if self.armed and self._left and self._pattern.search(statement):
            self._left -= 1
            return True
        self.passed.append(statement if len(statement) <= _LONGEST else statement[:_LONGEST] + "…")
        return False

    def give_back(self) -> None:
        """The connection ended by itself before it could be cut: wait for another one."""
        self._left += 1

    def spring(self) -> None:
        """Note that a connection is being cut."""
        self.sprung += 1
        if self.sprung == self._times:
            self._report("fired")

    def hold(self, release: Callable[[], None]) -> None:
        """Keep the way to deliver a statement that is held back."""
        self._held.append(release)

    def release(self) -> list[Callable[[], None]]:
        """Give the ways to deliver what is held back, and forget them."""
        held, self._held = self._held, []
        return held

    def settle(self, *, delivered: bool) -> None:
        """Note what became of a statement that was to be delivered late."""
        if delivered:
            self.delivered += 1
        else:
            self.lost += 1
        if self.delivered + self.lost == self._times:
            self._report("settled")

    def disarm(self) -> None:
        """Let everything pass from now on."""
        self._disarmed = True


class Snare:
    """A trap and the connection that was caught in it."""

    def __init__(self, trap: Trap, answer: int) -> None:
        self.trap = trap
        self.answer = answer
        """The number of the server's answer to the statement."""
        self.withhold = False
        """Whether what the server says no longer reaches the client."""
        self.held: bytearray | None = None
        """What is to be delivered late, until it is."""

    def answered(self) -> None:
        """The server has answered the statement."""
        if self.trap.when == "late":
            self.trap.settle(delivered=True)
        else:
            self.trap.spring()

    def escape(self) -> None:
        """The connection has ended otherwise."""
        if self.trap.when == "late" and self.withhold:
            self.trap.settle(delivered=False)
        else:
            self.trap.give_back()
