"""The page's files: read from the package once, served from memory."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.resources import files
from typing import Final

# Where they lie, and which of them are served. The viewer is shared with the self-contained flame graph.
_DIRECTORIES: Final = ("gprof_lite.formats.flamegraph", "gprof_lite.server.web")
_TYPE_BY_SUFFIX: Final = {
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "svg": "image/svg+xml",
    "png": "image/png",
    "html": "text/html; charset=utf-8",
}
INDEX: Final = "index.html"


@dataclass(frozen=True, slots=True)
class Asset:
    """One file, its type, and a tag that changes with its content."""

    data: bytes
    content_type: str
    etag: str


def load_assets() -> dict[str, Asset]:
    """File name -> asset."""
    assets = {}
    for package in _DIRECTORIES:
        for entry in files(package).iterdir():
            content_type = _TYPE_BY_SUFFIX.get(entry.name.rpartition(".")[2])
            if content_type and entry.is_file():
                data = entry.read_bytes()
                assets[entry.name] = Asset(data, content_type, hashlib.sha256(data).hexdigest()[:16])
    return assets
