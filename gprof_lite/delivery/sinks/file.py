"""The file sink: profiles as collapsed text and pprof in a directory, for hosts without a server or another collector.

The oldest files are removed when the directory holds more than its bound. Nothing else in it is touched.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from gprof_lite.clock import Deadline
from gprof_lite.delivery.payload import Payload
from gprof_lite.delivery.spool_name import SUFFIX, SpoolName
from gprof_lite.errors import Rejected, SpoolError, Transient
from gprof_lite.formats.collapsed import format_collapsed
from gprof_lite.formats.pprof import encode_pprof
from gprof_lite.stop import StopToken

COLLAPSED_SUFFIX: Final = ".collapsed"
PPROF_SUFFIX: Final = ".pb.gz"
_TEMPORARY_SUFFIX: Final = ".incoming"


class FileSink:
    """Writes ``<window>-<id>-<type>-<service>.collapsed`` and ``.pb.gz``. A payload sent twice is there once.

    Args:
        directory: made if it is not there.
        max_bytes: of all our files in it.

    Raises:
        SpoolError: the directory cannot be used.
    """

    name = "file"

    def __init__(self, directory: Path, max_bytes: int) -> None:
        self._directory = directory
        self._max_bytes = max_bytes
        self._files: deque[tuple[Path, int]] = deque()
        self._n_bytes = 0
        try:
            directory.mkdir(mode=0o755, parents=True, exist_ok=True)
            self._index()
        except OSError as exc:
            raise SpoolError(f"{directory}: {exc.strerror or exc}") from exc

    def send(self, payload: Payload, deadline: Deadline, stop: StopToken) -> None:
        """See ``Sink.send``."""
        stem = str(SpoolName.of(payload)).removesuffix(SUFFIX)
        try:
            pprof = encode_pprof(payload.profile)
        except ValueError as exc:
            raise Rejected(f"not to be put into pprof: {exc}") from exc
        text = "".join(f"{line}\n" for line in format_collapsed(payload.profile)).encode(errors="replace")
        try:
            self._write(stem + COLLAPSED_SUFFIX, text)
            self._write(stem + PPROF_SUFFIX, pprof)
            self._drop_oldest()
        except OSError as exc:
            raise Transient(f"{self._directory}: {exc.strerror or exc}") from exc

    def has_new_credentials(self) -> bool:
        return False

    def close(self) -> None:
        """It owns nothing."""

    def _write(self, name: str, data: bytes) -> None:
        path = self._directory / name
        temporary = self._directory / (name + _TEMPORARY_SUFFIX)
        was_there = path.exists()
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
            with open(os.open(temporary, flags, 0o644), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        if not was_there:
            self._files.append((path, len(data)))
            self._n_bytes += len(data)

    def _drop_oldest(self) -> None:
        # The two just written stay, whatever they take.
        while self._n_bytes > self._max_bytes and len(self._files) > 2:
            path, size_bytes = self._files.popleft()
            self._n_bytes -= size_bytes
            path.unlink(missing_ok=True)

    def _index(self) -> None:
        for path in sorted(self._ours()):
            if path.name.endswith(_TEMPORARY_SUFFIX):
                path.unlink()
            else:
                self._files.append((path, path.stat().st_size))
        self._n_bytes = sum(size_bytes for _, size_bytes in self._files)

    def _ours(self) -> Iterator[Path]:
        for path in self._directory.iterdir():
            stem = path.name.removesuffix(_TEMPORARY_SUFFIX).removesuffix(COLLAPSED_SUFFIX).removesuffix(PPROF_SUFFIX)
            if SpoolName.parse(stem + SUFFIX) is not None and path.is_file() and not path.is_symlink():
                yield path
