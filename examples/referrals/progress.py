"""Progress for people who watch, and a plain line for logs."""

from __future__ import annotations

from typing import Self, TextIO

from attrs import define


@define
class Progress:
    """Says on a stream how far things are; what moves, only if that is a terminal."""

    stream: TextIO
    _shown: str = ""

    def show(self, text: str) -> None:
        """Put `text` in the place of what was shown before."""
        if self.stream.isatty():
            self.stream.write(f"\r{text.ljust(len(self._shown))}")
            self.stream.flush()
            self._shown = text

    def message(self, text: str) -> None:
        """Print a line that stays."""
        self._erase()
        print(text, file=self.stream)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        # An error message should start on a line of its own.
        self._erase()

    def _erase(self) -> None:
        if self._shown:
            self.stream.write(f"\r{' ' * len(self._shown)}\r")
            self._shown = ""
