"""What a driver is like: one value for each driver, and safe defaults for one that is not known."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from attrs import field, frozen

from sessionfactory.drivers.transport import sockets

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sqlalchemy import URL
    from sqlalchemy.pool import ConnectionPoolEntry

    from sessionfactory.drivers.transport.encryption import Encryption

Code: TypeAlias = str | int
CodeTable: TypeAlias = Literal["postgresql", "mysql", "sqlite", "oracle", "odbc"]
"""Whose codes the errors of a driver have: a column of the table in ``error_codes``."""
Meaning: TypeAlias = Literal[
    "conflict",
    "lock timeout",
    "going down",
    "lost",
    "not ready",
    "too many clients",
    "unreachable",
    "read-only",
    "read-only server",
    "wrong login",
    "refused",
    "missing table",
    "invalid value",
    "rolled back",
    "already failed",
    "stale plan",
    "client time limit",
    "unclear",
]
Kind: TypeAlias = Literal["conflict", "lock timeout", "lost", "away", "stale plan"]
"""Why a transaction is worth another attempt. ``"conflict"``: with another transaction, as by a
deadlock. ``"lock timeout"``: another one held what was waited for. ``"lost"``: the connection,
during its use. ``"away"``: the server cannot be reached, or accepts no connection now.
``"stale plan"``: a prepared statement was made before a migration; the driver has dropped it."""
Arguments: TypeAlias = tuple[object, ...]
Keywords: TypeAlias = dict[str, object]
Connect: TypeAlias = "Callable[..., Any]"
Handle: TypeAlias = Any
"""A driver's own connection. The drivers have no base class or protocol in common."""


@frozen
class ConnectTimeout:
    """How a driver takes the time limit of an attempt to connect."""

    argument: str
    least: float = 0.0
    """Seconds; a shorter limit is not obeyed, or means none."""
    is_whole: bool = True
    """Whether only whole seconds can be given."""

    def arguments(self, seconds: float) -> dict[str, object]:
        """Return the keyword arguments of ``connect`` for a limit."""
        given = math.ceil(seconds) if self.is_whole else seconds
        return {self.argument: max(self.least, given)}


def _no_codes(_error: BaseException) -> list[Code]:
    return []


def _never(_handle: Handle) -> bool:
    return False


def _always(_handle: Handle) -> bool:
    return True


def _unknown_number(_handle: Handle) -> int | None:
    return None


def _unknown_state(_handle: Handle) -> bool | None:
    return None


def _nothing(_handle: Handle) -> None:
    return


def _nothing_within(_handle: Handle, _timeout: float) -> None:
    return


def _entry_unchanged(_entry: ConnectionPoolEntry) -> None:
    return


@frozen(kw_only=True)
class Driver:
    """A driver. The defaults are safe for one that is not known.

    Functions that take a connection take the driver's own, without SQLAlchemy's adapter; they may
    raise if it is closed, and the callers in ``connections`` allow for that.
    """

    name: str = ""
    """What SQLAlchemy calls it in a URL, after the ``+``."""
    install: str = ""
    """What to install, for an error message; empty for the name of the missing module."""

    # Errors.
    code_table: CodeTable | None = None
    codes: Callable[[BaseException], list[Code]] = field(default=_no_codes, repr=False)
    """Returns the codes of one of its errors."""
    connect_errors: frozenset[str] = frozenset({"OperationalError"})
    """Names of its classes for errors without a code that come from connecting."""
    forget_connection: Callable[[BaseException], None] | None = field(default=None, repr=False)
    """Takes from an error the connection that failed, which holds the password."""

    # Connecting.
    connect_timeout: ConnectTimeout | None = None
    has_libpq_defaults: bool = False
    """Whether it reads the environment's ``PG…`` variables and service files."""
    startup_options: Callable[[str], dict[str, object]] | None = field(default=None, repr=False)
    """Returns the arguments of ``connect`` for command-line options of PostgreSQL's back-end."""
    tls_arguments: Callable[[URL, bool], dict[str, object]] | None = field(default=None, repr=False)
    """Returns the arguments for encryption of a URL, verified or not; ``None`` if there is none."""
    encryption: Callable[[Handle], Encryption] | None = field(default=None, repr=False)
    """Looks at a connection's own encryption; ``None`` if it cannot be seen."""
    prepares_nothing: Mapping[str, object] = field(factory=dict[str, object], repr=False)
    """The arguments with which it uses no prepared statements on the server."""
    query_keys: Callable[[URL, Any], frozenset[str]] | None = field(default=None, repr=False)
    """Returns which keys of a URL's query it takes, given SQLAlchemy's DBAPI; ``None``: unknown."""
    takes_several_hosts: bool = False
    """Whether it tries one host of a URL after the other."""
    refusals: Mapping[tuple[str, str], str] = field(factory=dict[tuple[str, str], str], repr=False)
    """Sentences about a key and value of a URL's query that it cannot honour."""
    connect: Callable[[Connect, Arguments, Keywords], Any] | None = field(default=None, repr=False)
    """Calls ``Dialect.connect`` where arguments have to be translated, or the time limit of an
    attempt does not cover all of it; returns the connection."""
    encrypts_files: bool = False
    """Whether the password is the passphrase of a file, which would be in plaintext without one."""
    least_scram_rounds: int = 1
    """How many rounds of hashing a server's password has to have, for the driver to log in."""
    opens_in_thread: bool = False
    """Whether an asynchronous connection has a thread of its own, which opens it."""

    # Connections in use.
    can_cancel: Callable[[Handle], bool] = field(default=_never, repr=False)
    """Whether a running statement can be cancelled from outside, safely."""
    cancel: Callable[[Handle, float], None] = field(default=_nothing_within, repr=False)
    process_id: Callable[[Handle], int | None] = field(default=_unknown_number, repr=False)
    """Returns the server's number for its end of the connection."""
    send: Callable[[Handle, str], int] | None = field(default=None, repr=False)
    """Sends SQL in one message, outside any transaction, unprepared; returns a SELECT's rows."""
    is_in_transaction: Callable[[Handle], bool] = field(default=_always, repr=False)
    """Whether a transaction is open and has not failed; ``True`` if that is not known."""
    has_failed_transaction: Callable[[Handle], bool | None] = field(
        default=_unknown_state, repr=False
    )
    """Whether the open transaction has failed, so that COMMIT rolls it back; ``None``: unknown."""

    # The end of connections.
    descriptor: Callable[[Handle], int | None] = field(default=sockets.public_fileno, repr=False)
    listener: Callable[[Handle, int], Callable[[], object]] = field(
        default=sockets.listener, repr=False
    )
    """Returns a function that is true if the socket has news; given the descriptor."""
    hang_up: Callable[[Handle, int | None], None] = field(default=sockets.shut_down, repr=False)
    """Shuts the socket down; given the descriptor."""
    is_in_c: Callable[[Handle], bool] = field(default=_always, repr=False)
    """Whether a holder may be inside C code that must not lose the connection."""
    close_entered: Callable[[Handle, float], None] = field(default=_nothing_within, repr=False)
    """Closes it as soon as no holder is inside C code."""
    abandon: Callable[[Handle], None] = field(default=_nothing, repr=False)
    """Closes the socket of a connection whose event loop is gone, and touches nothing else."""
    disconnect_here: Callable[[Handle, int | None, int], None] = field(
        default=sockets.replace, repr=False
    )
    """Makes it useless in a forked child; given its descriptor and that of a dead socket."""
    close_from_outside: Callable[[ConnectionPoolEntry], None] = field(
        default=_entry_unchanged, repr=False
    )
    """Closes an idle connection without its event loop."""

    # What it can do for a transaction or a session.
    has_read_only_switch: bool = False
    """Whether its connections have an attribute for read-only transactions, which sends nothing."""
    read_only_autocommit: Literal["setting", "attribute"] | None = None
    """How statements outside transactions are made read-only on PostgreSQL."""
    prepared_end_with_rollback: bool = False
    """Whether ROLLBACK makes it forget the statements that it prepared."""
    clears_state: bool = False
    """Whether several statements at once clear a session, and prepared statements survive that."""
    sets_on_connect: str = ""
    """SQL that it sends when it connects, to be repeated after a session was cleared."""


UNKNOWN = Driver()
