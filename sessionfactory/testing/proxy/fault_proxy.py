"""A TCP proxy that stands before a real database server, and is slow or faulty as a test asks."""

from __future__ import annotations

from contextlib import contextmanager
from itertools import count as numbers
from math import isfinite
from typing import TYPE_CHECKING, Literal, Self

from sessionfactory.testing.proxy._control import Control
from sessionfactory.testing.proxy._count import Count
from sessionfactory.testing.proxy._trigger import Trigger, When
from sessionfactory.testing.proxy._upstream import find_upstream

if TYPE_CHECKING:
    from collections.abc import Generator

    from sqlalchemy import URL


class FaultProxy:
    """Stands between a client and a PostgreSQL, MariaDB or MySQL server, and misbehaves on demand.

    It listens on a free port of the loopback interface from its construction until `close`. Every
    method returns once what it asks for is in force, so that a test never has to sleep::

        with FaultProxy(server.url) as proxy:
            engine = create_engine(proxy.url)
            commit = proxy.cut("after", "COMMIT")
            with pytest.raises(OperationalError), engine.begin() as connection:
                connection.execute(insert(users).values(name="Ada"))
            assert commit.fired  # and the row is there, although the client saw an error

    The proxy runs in a process of its own, which ends with this one: it takes no time from the
    client's interpreter, and distorts no measurement but by the processor time it needs. All
    methods are thread-safe. Statements are read, and connections cut at them, as long as they are
    sent without TLS and compression; everything else works for any server that talks TCP.

    Args:
        url: the server's address as an SQLAlchemy URL; a unix socket (`?host=/run/postgresql`,
            `?unix_socket=/run/mysqld/mysqld.sock`) will do as well.
        latency: seconds added to each round trip; see `FaultProxy.latency`.

    Raises:
        ValueError: the URL cannot be parsed, or names no server, or several.
        OSError: the host's name cannot be resolved.
    """

    def __init__(self, url: str | URL, *, latency: float = 0.0) -> None:
        upstream = find_upstream(url)
        _check_seconds("latency", latency)
        self._numbers = numbers(1)
        self._control = Control(upstream.protocol)
        self._url = upstream.via(self._control.port)
        self._upstream = upstream
        try:
            self.upstream = upstream.url
            self.latency = latency
        except BaseException:
            self.close()
            raise

    @property
    def url(self) -> URL:
        """The URL given first, with the proxy's host and port in place of the server's."""
        return self._url

    @property
    def port(self) -> int:
        """The port on 127.0.0.1 where the proxy listens, the same all its life."""
        return self._control.port

    @property
    def upstream(self) -> URL:
        """The real server's URL; set it to send new connections to another server, as a failover.

        Connections that are open stay where they are; `reset` cuts them. Only the place counts:
        clients keep `url`, with its credentials and its database.
        """
        return self._upstream.url

    @upstream.setter
    def upstream(self, url: str | URL) -> None:
        upstream = find_upstream(url)
        if upstream.protocol != self._upstream.protocol:
            raise ValueError(
                f"the proxy was made for {self._upstream.url.get_backend_name()}, and cannot stand"
                f" before {upstream.url.get_backend_name()}"
            )
        self._control.request("upstream", addresses=upstream.addresses)
        self._upstream = upstream

    @property
    def latency(self) -> float:
        """Seconds added to each round trip, connecting included; may be set at any time.

        A delay is not a queue: messages sent one after the other without waiting for answers arrive
        so much later, and as close together as they were sent. The whole of it is added on the way
        to the server, because a client cannot tell the difference and it wakes the proxy half as
        often; so what a server says unasked is not delayed.
        """
        return self._latency

    @latency.setter
    def latency(self, seconds: float) -> None:
        _check_seconds("latency", seconds)
        self._control.request("latency", seconds=seconds)
        self._latency = seconds

    # Faults of the network: each takes the place of the one before.

    def black_hole(self) -> None:
        """Accept connections and forward nothing, in either direction; none is closed.

        As on a line that is interrupted: what was sent meanwhile arrives after `restore`.
        """
        self._control.request("mode", mode="black hole")

    def deaf(self) -> None:
        """Go on listening, but never accept: the system completes a connection, and nobody answers.

        Connections that are open work on.
        """
        self._control.request("mode", mode="deaf")

    def refuse(self, *, existing: Literal["keep", "cut"] = "keep") -> None:
        """Refuse new connections; keep those that are open, or reset them too."""
        self._control.request("mode", mode="refuse")
        if existing == "cut":
            self.reset()

    def reset(self) -> None:
        """Reset all connections that are open (RST), on both sides; new ones are welcome."""
        self._control.request("reset")

    def restore(self) -> None:
        """End black hole, deafness and refusal, and disarm all cuts; the latency stays as it is."""
        self._control.request("mode", mode="restore")

    # Faults at a statement.

    def cut(
        self, when: When, statement: str, *, count: int = 1, delay: float | None = None
    ) -> Trigger:
        """Reset the client's connection at the next statement that begins with these words.

        Whatever connection it comes on, as a simple query or as the execution of a prepared
        statement (on MySQL and MariaDB: as text); case, white space and a final semicolon do not
        matter, and it may stand anywhere in a text of several statements.

        Args:
            when: "before": the statement never reaches the server. "after": the server has executed
                and answered it, and the answer never reaches the client. "late": the client is cut
                at once, and the server gets the statement later, from a connection that it takes
                for alive.
            statement: for example "COMMIT" or "INSERT INTO users".
            count: how many connections to cut, one after the other.
            delay: seconds after which a "late" statement is delivered; `None`: when
                `Trigger.release` is called.

        Returns:
            A trigger that tells when it has fired.

        Raises:
            ValueError: a value makes no sense, or the server's protocol cannot be read.
        """
        if when not in ("before", "after", "late"):
            raise ValueError(f'a cut is "before", "after" or "late", not {when!r}')
        if not self._upstream.protocol:
            backend = self._upstream.url.get_backend_name()
            raise ValueError(f"the proxy cannot read the protocol of {backend}, so it cannot cut")
        if not statement.strip("; \t\r\n"):
            raise ValueError("a cut needs a statement to wait for")
        if count < 1:
            raise ValueError(f"a cut needs a count of at least 1, not {count}")
        if delay is not None:
            _check_seconds("delay", delay)
            if when != "late":
                raise ValueError(f'only a "late" cut has a delay, not one "{when}"')
        number = next(self._numbers)
        self._control.request(
            "cut", trap=number, when=when, statement=statement, times=count, delay=delay
        )
        return Trigger(self._control, number, when, statement, count)

    # Counts.

    @property
    def round_trips(self) -> int:
        """Round trips of all time, without logins; `Count.round_trips` says what counts."""
        return self._total("round_trips")

    @property
    def login_round_trips(self) -> int:
        """Round trips of all logins."""
        return self._total("login_round_trips")

    @property
    def connections(self) -> int:
        """How many connections were accepted."""
        return self._total("connections")

    @property
    def open_connections(self) -> int:
        """How many connections are open; one that the client has closed is not."""
        return self._total("open")

    @contextmanager
    def counting(self) -> Generator[Count]:
        """Count what passes during the block, and keep its statements; blocks may nest."""
        count = Count(self._control, next(self._numbers))
        try:
            yield count
        finally:
            count.finish()

    def close(self) -> None:
        """Close the port and all connections, and end the proxy's process; idempotent."""
        self._control.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _total(self, name: str) -> int:
        return int(self._control.request("read")[name])

    def __repr__(self) -> str:
        return f"<FaultProxy on 127.0.0.1:{self.port} before {self._upstream.place}>"


def _check_seconds(name: str, value: float) -> None:
    if not (isfinite(value) and value >= 0):
        raise ValueError(f"{name} is a number of seconds, not {value!r}")
