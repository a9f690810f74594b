"""The books of the proxy: what was accepted, what went to and fro."""

from __future__ import annotations


class Tally:
    """Counts since some moment, or of all time."""

    def __init__(self) -> None:
        self.connections = 0
        self.round_trips = 0
        self.login_round_trips = 0
        self.flights: list[list[str]] = []


class Ledger:
    """Counts everything once, and in addition for each recording that is under way."""

    def __init__(self) -> None:
        self._total = Tally()
        self._recordings: dict[int, Tally] = {}

    def connection(self) -> None:
        """Note that a client was accepted."""
        for tally in self._all():
            tally.connections += 1

    def round_trip(self, statements: list[str], *, login: bool) -> None:
        """Note that the server has begun to answer a flight of messages."""
        for tally in self._all():
            if login:
                tally.login_round_trips += 1
            else:
                tally.round_trips += 1
        for tally in self._recordings.values():
            if not login:
                tally.flights.append(statements)

    def record(self, number: int) -> None:
        """Begin to count anew, under this number, and to keep the statements."""
        self._recordings[number] = Tally()

    def read(self, number: int | None, *, last: bool) -> dict[str, object]:
        """Give a recording, or the counts of all time; forget it if this is the last look."""
        tally = self._total if number is None else self._recordings[number]
        if last and number is not None:
            del self._recordings[number]
        return vars(tally)

    def _all(self) -> tuple[Tally, ...]:
        return (self._total, *self._recordings.values())
