"""Throwaway MariaDB servers: real ones, ready in about a second.

    with MariaDBServer() as server:
        factory = SqlAlchemySessionFactory(DatabaseSettings(server.url))

The binaries come from the first of these that is there: the directory named by the environment
variable `SESSIONFACTORY_MARIADB_DIR`, a folder ``.mariadb`` in the current directory or above it,
a system installation.
"""

from __future__ import annotations

import secrets
import signal
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from sessionfactory.testing.servers._binaries import find_mariadb, mariadb_program, mariadb_share
from sessionfactory.testing.servers._process import ServerError
from sessionfactory.testing.servers._server import Setting, ThrowawayServer

if TYPE_CHECKING:
    from collections.abc import Mapping

SYSTEM_TABLES = (
    "mysql_system_tables.sql",
    "mysql_performance_tables.sql",
    "mysql_system_tables_data.sql",
)
CLIENTS = ("bin/mariadb", "bin/mysql")
OWN = frozenset({"port", "bind_address", "socket", "datadir", "basedir", "pid_file", "tmpdir"})

DEFAULTS: dict[str, Setting] = {
    "character_set_server": "utf8mb4",
    "default_time_zone": "+00:00",  # and not this machine's
    "innodb_buffer_pool_size": "64M",
    "innodb_log_file_size": "32M",
    "skip_name_resolve": True,
}
# Each commit is still handed to the operating system, so that it survives SIGKILL, and torn pages
# can still be repaired; only nothing waits for a disk.
HASTY: dict[str, Setting] = {"innodb_flush_log_at_trx_commit": 2, "innodb_flush_method": "nosync"}


class MariaDBServer(ThrowawayServer):
    """A throwaway MariaDB server, a context manager; its data survives ``kill()``.

    Args:
        settings: server variables by name. Those of a running server are changed by
            ``execute("SET GLOBAL …")``.
        port: the port on 127.0.0.1; None for a free one.
        durable: whether commits wait for a real disk, as in production. Not needed to test crashes
            of the server: without it too a commit outlives the process. Slower, never in memory.
        timeout: seconds that any single step (initialising, starting, stopping) may take.
    """

    kind = "mariadb"
    skipped: ClassVar[tuple[str, ...]] = (
        "*.a",
        "mariadb-*",
        "myisam*",
        "aria_*",
        "innochecksum",
        "mbstream",
    )

    def __init__(
        self,
        *,
        settings: Mapping[str, Setting] | None = None,
        port: int | None = None,
        durable: bool = False,
        timeout: float = 60.0,
    ) -> None:
        super().__init__(settings=settings, port=port, durable=durable, timeout=timeout)
        self._settings = {k.replace("-", "_"): value for k, value in self._settings.items()}
        for name in OWN & self._settings.keys():
            raise ValueError(f"{name} is not for settings: it is MariaDBServer's own business")
        self._tree = Path()
        self._password = secrets.token_urlsafe(12)  # loopback is open to all users of the machine

    @property
    def url(self) -> str:
        """The URL of the database ``test`` for pymysql."""
        return self.url_for()

    @property
    def async_url(self) -> str:
        """The same for aiomysql."""
        return self.url_for("aiomysql")

    def url_for(self, driver: str = "pymysql", database: str = "test") -> str:
        """Return the URL of a database for any driver of SQLAlchemy."""
        return f"mysql+{driver}://root:{self._password}@127.0.0.1:{self.port}/{database}"

    def stop(self) -> None:
        """Stop the server in good order; nothing happens if it is down."""
        self._end(signal.SIGTERM)

    def restart(self) -> None:
        """Stop the server and start it again, on the same port."""
        self.stop()
        self.start()

    def execute(self, sql: str, *, database: str = "test") -> str:
        """Run SQL as the superuser through MariaDB's own client.

        Returns:
            The rows: one a line, their columns separated by tabs.

        Raises:
            ServerError: with MariaDB's message if it fails, or if the client is not there.
        """
        client = next((self._tree / c for c in CLIENTS if (self._tree / c).is_file()), None)
        if client is None:
            raise ServerError(f"{self._tree} has no MariaDB client: {' or '.join(CLIENTS)}")
        done = subprocess.run(  # noqa: S603 - the installation's own client
            [
                *(client, "--no-defaults", "--batch", "--skip-column-names"),
                *("--default-character-set=utf8mb4", "--user=root", f"--socket={self._socket}"),
                *(f"--database={database}", f"--execute={sql}"),
            ],
            capture_output=True,
            timeout=self._timeout,
            env=self._environment(),
            encoding="utf-8",
            check=False,
        )
        if done.returncode:
            raise ServerError(done.stderr.strip())
        return done.stdout.removesuffix("\n")

    @property
    def _socket(self) -> Path:
        return self.directory / "socket"

    @property
    def _farewell(self) -> signal.Signals:
        return signal.SIGKILL  # it leaves nothing outside its directory

    def _environment(self) -> dict[str, str]:
        """Add the libraries and tools that an unpacked, not installed MariaDB brings with it."""
        variables = super()._environment()
        if self._tree == Path("/usr"):
            return variables  # pragma: no cover - the tests fetch their own
        programs = [self._tree / "bin", self._tree / "sbin", variables.get("PATH", "")]
        libraries = [*(self._tree / "lib").glob("*-linux-gnu*"), variables.get("LD_LIBRARY_PATH")]
        return variables | {
            "PATH": ":".join(map(str, programs)),
            "LD_LIBRARY_PATH": ":".join(str(library) for library in libraries if library),
        }

    def _locate(self) -> Path:
        return find_mariadb()

    def _prepare(self, tree: Path) -> None:
        self._tree = tree
        share = mariadb_share(tree)
        local, remote = "root@localhost", "root@'127.0.0.1'"
        logins = [
            "FLUSH PRIVILEGES",
            "DELETE FROM global_priv WHERE User = '' OR User = 'root'",
            "FLUSH PRIVILEGES",
            f"CREATE USER {local} IDENTIFIED BY ''",  # through the socket in a closed directory
            f"CREATE USER {remote} IDENTIFIED BY '{self._password}'",
            f"GRANT ALL ON *.* TO {local} WITH GRANT OPTION",
            f"GRANT ALL ON *.* TO {remote} WITH GRANT OPTION",
            "CREATE DATABASE test",
        ]
        script = self.directory / "prepare.sql"
        script.write_text(
            "CREATE DATABASE mysql;\nUSE mysql;\n"
            + "".join((share / name).read_text(encoding="utf-8") for name in SYSTEM_TABLES)
            + "".join(f"{statement};\n" for statement in logins),
            encoding="utf-8",
        )
        data = self.directory / "data"
        data.mkdir()
        self._kept.give(data)
        self._run([*self._command(), "--bootstrap", "--skip-networking"], source=script)
        script.unlink()

    def _command(self) -> list[object]:
        share, here = mariadb_share(self._tree), self.directory
        plugins = self._tree / "lib" / "mysql" / "plugin"
        options: dict[str, object] = {
            **(DEFAULTS if self._durable else DEFAULTS | HASTY),
            **self._settings,
            "basedir": self._tree,
            "lc_messages_dir": share,
            "character_sets_dir": share / "charsets",
            **({"plugin_dir": plugins} if plugins.is_dir() else {}),
            "datadir": here / "data",
            "tmpdir": here,
            "pid_file": here / "pid",
            "socket": self._socket,
            "port": self.port,
            "bind_address": "127.0.0.1",
        }
        words = [f"--{name}={_written(value)}" for name, value in options.items()]
        return [mariadb_program(self._tree), "--no-defaults", *words]

    def _ready(self, pid: int) -> bool:
        """Look for the server's greeting on its port, which nobody else can have."""
        del pid
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                return connection.recv(5)[4:] == b"\n"  # protocol 10, after four bytes of header
        except OSError:
            return False


def _written(value: object) -> str:
    """Write a value as the command line wants it."""
    return str(int(value)) if isinstance(value, bool) else str(value)
