"""Reads text files that a configuration names: regular files only, and none without end."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

MOST_OF_A_SECRET: Final = 65_536
"""Bytes: far more than any password, token or key."""
MOST_OF_A_CONFIGURATION: Final = 4_194_304


def read_text(file: Path, most: int) -> str:
    """Return the text of a file.

    A FIFO would block the reader, and a device such as ``/dev/zero`` has no end: both are refused
    without a wait.

    Args:
        file: which.
        most: the bytes that it may have.

    Raises:
        ValueError: the file cannot be used; the message is a sentence for a person.
    """
    try:
        return _read(file, most).decode()
    except OSError as error:
        problem = f"the file cannot be read: {error.strerror}"
    except UnicodeDecodeError:
        problem = "the file is not UTF-8 text"
    raise ValueError(problem)


def _read(file: Path, most: int) -> bytes:
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(file, flags)
    except ValueError:  # a NUL, or a character that no encoding has
        raise ValueError("the file cannot be read: invalid file name") from None
    try:
        if not stat.S_ISREG(mode := os.fstat(descriptor).st_mode):
            what = "a directory" if stat.S_ISDIR(mode) else "a pipe, socket or device"
            raise ValueError(f"the file cannot be read: it is {what}")
        content = b""
        while len(content) <= most and (part := os.read(descriptor, most + 1 - len(content))):
            content += part
    finally:
        os.close(descriptor)
    if len(content) > most:
        raise ValueError(f"the file holds more than {most} bytes")
    return content
