"""Debug information from a debuginfod server, where the operator has set DEBUGINFOD_URLS.

Source: debuginfod(8): ``GET URL/buildid/HEX/debuginfo``; the variable lists servers, separated by spaces.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from gprof_lite.clock import Deadline
from gprof_lite.lean_requests import requests

VARIABLE: Final = "DEBUGINFOD_URLS"
_CHUNK_BYTES: Final = 256 * 1024


@dataclass(frozen=True, slots=True)
class Debuginfod:
    """The servers to ask, in order."""

    urls: tuple[str, ...]
    wait_s: float
    max_bytes: int

    @classmethod
    def from_environment(cls, environment: Mapping[str, str], wait_s: float, max_bytes: int) -> Debuginfod:
        """Those of the variable that are http or https."""
        urls = environment.get(VARIABLE, "").split()
        accepted = tuple(url.rstrip("/") for url in urls if url.startswith(("http://", "https://")))
        return cls(accepted, wait_s, max_bytes)

    def fetch(self, build_id: str) -> int | None:
        """A descriptor of a file in memory with the debug information, which the caller closes; None if nobody has it.

        Cost: at most about ``wait_s``, whatever the servers do.
        """
        deadline = Deadline.after(self.wait_s)
        for url in self.urls:
            if deadline.passed:
                return None
            fd = os.memfd_create("gprof-lite-debuginfo", os.MFD_CLOEXEC)
            try:
                if self._download(f"{url}/buildid/{build_id}/debuginfo", fd, deadline):
                    return fd
            except (requests.RequestException, OSError):  # that server does not answer
                pass
            os.close(fd)
        return None

    def _download(self, url: str, fd: int, deadline: Deadline) -> bool:
        n_bytes = 0
        with requests.get(url, stream=True, timeout=max(0.1, deadline.remaining_s())) as response:
            if response.status_code != requests.codes.ok:
                return False
            for chunk in response.iter_content(_CHUNK_BYTES):
                n_bytes += len(chunk)
                if n_bytes > self.max_bytes or deadline.passed:
                    return False
                os.pwrite(fd, chunk, n_bytes - len(chunk))
        return n_bytes > 0
