"""A line that says how far long work has come: rewritten on a terminal, printed when it changes kind elsewhere."""

from __future__ import annotations

import re
from types import TracebackType
from typing import Final, TextIO

_NUMBERS: Final = re.compile(r"\d+(\.\d+)?")


class ProgressLine:
    """Shows one line at a time on ``stream``; leaving the context removes it from a terminal.

    Elsewhere than on a terminal (a pipe, a log) lines that differ only in their numbers are shown once.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._is_terminal = stream.isatty()
        self._shown_kind = ""

    def show(self, text: str) -> None:
        """Replace what is shown."""
        if self._is_terminal:
            self._write(f"\r\x1b[K{text}")
        elif (kind := _NUMBERS.sub("#", text)) != self._shown_kind:
            self._shown_kind = kind
            self._write(text + "\n")

    def clear(self) -> None:
        """Make room on a terminal for what is printed next."""
        if self._is_terminal:
            self._write("\r\x1b[K")

    def __enter__(self) -> ProgressLine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.clear()

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (BrokenPipeError, ValueError):
            pass  # nobody looks at the progress any more; the work goes on
