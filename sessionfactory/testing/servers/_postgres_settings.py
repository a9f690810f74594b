"""What a throwaway PostgreSQL is told: its settings, and its superuser's password."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from base64 import b64encode
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sessionfactory.testing.servers._server import Setting

SETTINGS_FILE = "throwaway.conf"

# What a running server thinks of its files, except that a change needs a restart, which it calls
# an error too.
REFUSED = (
    "SELECT file.name, file.setting, file.error FROM pg_file_settings AS file"
    " LEFT JOIN pg_settings AS known ON known.name = lower(file.name)"
    " WHERE file.error IS NOT NULL AND known.context IS DISTINCT FROM 'postmaster'"
)

OWN = {
    "port": "give it to PostgresServer(port=…)",
    "listen_addresses": "a throwaway server listens on loopback only",
    "unix_socket_directories": "the socket is in the server's own directory",
    "recovery_min_apply_delay": "assign to the standby's apply_delay",
}

# `synchronous_commit` and `full_page_writes` stay on: without waiting for a disk they cost little,
# a commit survives SIGKILL, a page that SIGKILL tore is repaired, and standbys do not lag.
DEFAULTS: dict[str, Setting] = {
    "dynamic_shared_memory_type": "mmap",  # in the directory, so that it goes with it
    "unix_socket_permissions": "0700",
    "wal_keep_size": "128MB",  # a standby may be down for a while
    "timezone": "UTC",  # and not this machine's
    "jit": False,  # a query's first run takes as long as its second
}


def check_settings(settings: Mapping[str, Setting]) -> None:
    """Refuse what is no name of a setting, and what is the server object's own business."""
    for name in settings:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.]*", name):
            raise ValueError(f"{name!r} is not the name of a PostgreSQL setting")
        if name.lower() in OWN:
            raise ValueError(f"{name} is not for settings: {OWN[name.lower()]}")


def quoted(value: Setting) -> str:
    """Write a value as configuration files want it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    text = str(value).replace("\\", "\\\\").replace("'", "''").replace("\n", "\\n")
    return f"'{text}'"


def verifier(password: str, rounds: int = 1) -> str:
    """Return what PostgreSQL stores for a password, with one round of hashing instead of 4,096.

    The rounds slow down guessing, and every connection of every test with it.
    """
    salt = secrets.token_bytes(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, rounds)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    salt_, stored_, server_ = (b64encode(part).decode() for part in (salt, stored, server))
    return f"SCRAM-SHA-256${rounds}:{salt_}${stored_}:{server_}"
