"""A cut that waits for its statement, as the test that set it sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Self

if TYPE_CHECKING:
    from sessionfactory.testing.proxy._control import Control

When = Literal["before", "after", "late"]


class Trigger:
    """Cuts connections at a statement; made by `FaultProxy.cut`, and usable from any thread.

    As a context manager it is disarmed at the end of the block, whether it has fired or not.
    """

    def __init__(
        self, control: Control, number: int, when: When, statement: str, count: int
    ) -> None:
        self._control = control
        self._number = number
        self.when: When = when
        """Which side of the statement is cut: "before", "after" or "late"."""
        self.statement = statement
        """What the statement begins with."""
        self.count = count
        """How many connections are to be cut."""

    @property
    def times(self) -> int:
        """How many connections have been cut so far."""
        return int(self._look()["sprung"])

    @property
    def fired(self) -> bool:
        """Whether all `count` connections have been cut; true once the last client can see it."""
        return self.times == self.count

    def wait(self, timeout: float = 5.0) -> None:
        """Return once the trigger has fired.

        Args:
            timeout: seconds.

        Raises:
            TimeoutError: it has not fired by then; names the statements that passed instead.
        """
        if not self._happens("fired", timeout):
            raise TimeoutError(self._excuse(timeout))

    def release(self, timeout: float = 5.0) -> bool:
        """Deliver the late statements now, and return as `wait_delivered` does.

        Waits first until the trigger has fired, so that there is something to deliver.

        Raises:
            ValueError: this is not a "late" cut.
            TimeoutError: not fired, or not answered, so many seconds later.
        """
        self._check_late()
        self.wait(timeout)
        self._control.request("release", trap=self._number)
        return self.wait_delivered(timeout)

    def wait_delivered(self, timeout: float = 5.0) -> bool:
        """Return once it is settled what became of the late statements.

        Returns:
            Whether the server has answered them all; false if it had ended a connection before its
            statement was delivered or answered.

        Raises:
            ValueError: this is not a "late" cut.
            TimeoutError: it is not settled so many seconds later.
        """
        self._check_late()
        if not self._happens("settled", timeout):
            raise TimeoutError(
                f"{self.statement} was not answered within {timeout:g} s: not released yet, or the"
                " server is busy with it"
            )
        return bool(self._look()["delivered"] == self.count)

    def cancel(self) -> None:
        """Cut no more; late statements can still be released."""
        self._control.request("disarm", trap=self._number)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.cancel()

    def __repr__(self) -> str:
        return f"<Trigger {self.when} {self.statement!r}, {self.count} times>"

    def _happens(self, event: str, timeout: float) -> bool:
        return self._control.wait(lambda: self._control.has_happened(self._number, event), timeout)

    def _look(self) -> dict[str, Any]:
        answer: dict[str, Any] = self._control.request("look", trap=self._number)
        return answer

    def _check_late(self) -> None:
        if self.when != "late":
            raise ValueError(f'a cut "{self.when}" the statement delivers nothing late')

    def _excuse(self, timeout: float) -> str:
        seen = self._look()
        passed = "; ".join(seen["passed"]) or "none"
        excuse = (
            f"{seen['sprung']} of {self.count} connections were cut {self.when} {self.statement!r}"
            f" within {timeout:g} s; statements that passed: {passed}"
        )
        if seen["unreadable"]:
            excuse += f"; {seen['unreadable']} connections could not be read (TLS, compression)"
        return excuse
