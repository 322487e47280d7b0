"""The server's page: static files, served as they are under ``/static/`` (``index.html`` at ``/``).

``read_asset`` is the whole interface. It answers only for the files it names, so no request can reach another one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Final

from gprof_lite.formats.flamegraph import VIEWER_SCRIPTS, VIEWER_STYLE

_VIEWER: Final = frozenset((*VIEWER_SCRIPTS, VIEWER_STYLE))
_PAGE: Final = frozenset(("index.html", "icon.svg", "page.css", "page.js", "profile_source.js", "timeline.js"))
_CONTENT_TYPES: Final = {
    "css": "text/css; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}

# What the page needs: its own scripts and styles, and questions to its own server. The viewer sets widths and places
# through the object model, which a policy without 'unsafe-inline' permits.
CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)


@dataclass(frozen=True, slots=True)
class Asset:
    """One static file. ``body`` is sent as it is, with ``content_type``."""

    content_type: str
    body: bytes


def read_asset(name: str) -> Asset | None:
    """The page's file of this name, or None when the page has no such file."""
    if name in _VIEWER:
        return _read("gprof_lite.formats.flamegraph", name)
    if name in _PAGE:
        return _read("gprof_lite.server.web", name)
    return None


@cache  # of the few names above only: what a client asks for must not fill it
def _read(package: str, name: str) -> Asset:
    return Asset(_CONTENT_TYPES[name.rpartition(".")[2]], (files(package) / name).read_bytes())
