"""Quarantine: what will not be sent, kept for people to look at, bounded like everything on disk.

Beside each file lies ``<name>.why`` with the words of whoever refused it. A payload whose cause has been mended can be
moved back into the spool directory while the agent is stopped: its name still says all that the spool must know.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from dataclasses import dataclass
from typing import Final

from gprof_lite.clock import Clock
from gprof_lite.delivery.spool_file import FILE_MODE, allocated_bytes, remove
from gprof_lite.delivery.spool_name import slug

DIRECTORY_NAME: Final = "quarantine"
WORDS_SUFFIX: Final = ".why"
MAX_WORDS_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class _Kept:
    name: str
    charged_bytes: int
    since_ns: int


class Quarantine:
    """Owns the descriptor of ``quarantine/`` inside the spool directory. Not thread-safe: the spool holds its lock.

    Args:
        spool_fd: the spool directory; stays the caller's.
        max_bytes, max_age_s: what is older or too much goes, oldest first.
    """

    def __init__(self, spool_fd: int, max_bytes: int, max_age_s: float, clock: Clock) -> None:
        self._spool_fd = spool_fd
        self._max_bytes = max_bytes
        self._max_age_s = max_age_s
        self._clock = clock
        self._fd = _open_directory(spool_fd)
        self._kept: deque[_Kept] = deque()
        self.n_bytes = 0
        self.n_dropped = 0
        self._index()

    @property
    def n_files(self) -> int:
        return len(self._kept)

    def take(self, name: str, words: str) -> None:
        """Move a payload of the spool here, with the words of whoever refused it.

        Raises:
            OSError: it could not be moved; it is where it was.
        """
        self._take(name, name, words)

    def take_foreign(self, name: str, words: str) -> None:
        """Move a file here that is no payload; it gets a harmless name, the words keep the real one.

        Raises:
            OSError: as ``take``.
        """
        digest = hashlib.sha256(os.fsencode(name)).hexdigest()[:12]
        self._take(name, f"foreign-{digest}-{slug(name)}", f"{words}; its name was {name!r}")

    def sweep(self) -> None:
        """Drop what is too old or too much."""
        oldest_ns = self._clock.utc_ns() - round(self._max_age_s * 1e9)
        while self._kept and (self.n_bytes > self._max_bytes or self._kept[0].since_ns < oldest_ns):
            self._drop_oldest()

    def close(self) -> None:
        os.close(self._fd)

    def _take(self, name: str, kept_as: str, words: str) -> None:
        os.replace(name, kept_as, src_dir_fd=self._spool_fd, dst_dir_fd=self._fd)
        self._write_words(kept_as, words)
        self._add(kept_as, self._clock.utc_ns())
        self.sweep()

    def _write_words(self, name: str, words: str) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            with open(os.open(name + WORDS_SUFFIX, flags, FILE_MODE, dir_fd=self._fd), "wb") as file:
                file.write(words.encode(errors="replace")[:MAX_WORDS_BYTES] + b"\n")
        except OSError:
            # A full disk has no room for the words. The payload is what counts, and the words are in the log too.
            pass

    def _index(self) -> None:
        with os.scandir(self._fd) as entries:
            found = {
                entry.name: entry.stat(follow_symlinks=False).st_ctime_ns
                for entry in entries
                if not entry.is_dir(follow_symlinks=False)
            }
        for name, since_ns in sorted(found.items(), key=lambda item: item[1]):
            if not name.endswith(WORDS_SUFFIX):
                self._add(name, since_ns)
            elif name.removesuffix(WORDS_SUFFIX) not in found:
                remove(self._fd, name)  # its payload was dropped, or put back by an operator
        self.sweep()

    def _add(self, name: str, since_ns: int) -> None:
        size_bytes = os.stat(name, dir_fd=self._fd, follow_symlinks=False).st_size
        kept = _Kept(name, allocated_bytes(size_bytes) + allocated_bytes(MAX_WORDS_BYTES), since_ns)
        self._kept.append(kept)
        self.n_bytes += kept.charged_bytes

    def _drop_oldest(self) -> None:
        kept = self._kept.popleft()
        self.n_bytes -= kept.charged_bytes
        self.n_dropped += 1
        try:
            remove(self._fd, kept.name)
            remove(self._fd, kept.name + WORDS_SUFFIX)
        except OSError:
            # It stays on disk, unknown to us, until the next start tries again.
            pass


def _open_directory(spool_fd: int) -> int:
    try:
        os.mkdir(DIRECTORY_NAME, 0o700, dir_fd=spool_fd)
    except FileExistsError:
        pass
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(DIRECTORY_NAME, flags, dir_fd=spool_fd)
