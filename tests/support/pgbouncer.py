"""PgBouncer before a throwaway PostgreSQL, in transaction mode, as in production."""

from __future__ import annotations

import shutil
import signal
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import make_url

from sessionfactory.testing.servers._process import ServerUnavailableError
from sessionfactory.testing.servers._server import ThrowawayServer

if TYPE_CHECKING:
    from sessionfactory.testing import PostgresServer

_FOLDER = Path(__file__).parents[2] / ".pgbouncer" / "usr"


class PgBouncer(ThrowawayServer):
    """A throwaway PgBouncer, from ``make pgbouncer`` or the system; a context manager.

    Args:
        server: the PostgreSQL behind it.
        connections: how many it opens to that; all clients share them.
    """

    kind = "pgbouncer"

    def __init__(self, server: PostgresServer, connections: int = 2) -> None:
        super().__init__(settings=None, port=None, durable=False, timeout=60.0)
        self._server = make_url(server.url)
        self._connections = connections
        self._tree = Path()

    def url_for(self, driver: str = "psycopg") -> str:
        """Return the URL of the database ``postgres`` through the pooler."""
        return f"postgresql+{driver}://postgres@127.0.0.1:{self.port}/postgres"

    def _locate(self) -> Path:
        installed = shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin:/usr/local/bin")
        for tree in (_FOLDER, *([Path(installed).parents[1]] if installed else [])):
            if (tree / "sbin" / "pgbouncer").is_file() or (tree / "bin" / "pgbouncer").is_file():
                return tree
        raise ServerUnavailableError("no PgBouncer here: run `make pgbouncer`")

    def _prepare(self, tree: Path) -> None:
        self._tree = tree
        behind = self._server
        where = f"host={behind.host} port={behind.port}"
        settings = {
            "listen_addr": "127.0.0.1",
            "listen_port": self.port,
            "unix_socket_dir": "",
            "auth_type": "any",
            "pool_mode": "transaction",
            "default_pool_size": self._connections,
            "max_client_conn": 100,
            "ignore_startup_parameters": "extra_float_digits,options",
        }
        self._settings_file.write_text(
            f"[databases]\n* = {where} user={behind.username} password={behind.password}\n"
            "[pgbouncer]\n" + "".join(f"{key} = {value}\n" for key, value in settings.items())
        )

    @property
    def _settings_file(self) -> Path:
        return self.directory / "pgbouncer.ini"

    def _command(self) -> list[object]:
        programs = (self._tree / place / "pgbouncer" for place in ("sbin", "bin"))
        return [next(found for found in programs if found.is_file()), self._settings_file]

    def _environment(self) -> dict[str, str]:
        variables = super()._environment()
        libraries = [*(self._tree / "lib").glob("*-linux-gnu*"), variables.get("LD_LIBRARY_PATH")]
        return variables | {"LD_LIBRARY_PATH": ":".join(str(path) for path in libraries if path)}

    def _ready(self, pid: int) -> bool:
        del pid
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True

    @property
    def _farewell(self) -> signal.Signals:
        return signal.SIGKILL
