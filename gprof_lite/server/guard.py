"""What stands before every route: whom the request was meant for, and the headers of every answer.

There is no password, so the danger is a foreign web page in the operator's browser. It cannot read our answers (no CORS
header is ever sent), but it could send requests, or get a host name of its own resolved to our address. Hence: the Host
header must be an IP address, this host or a configured name; a request that changes something must not come from
another origin.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

from werkzeug.wrappers import Request, Response

from gprof_lite.server.refusal import Refusal

SECURITY_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_HARMLESS: Final = frozenset({"GET", "HEAD", "OPTIONS"})


class Guard:
    """Knows under which names the server may be reached."""

    def __init__(self, listen_host: str, names: Iterable[str] = ()) -> None:
        own = (listen_host, "localhost", socket.gethostname(), *names)
        self._names = frozenset(name.lower().rstrip(".") for name in own)

    def check(self, request: Request) -> None:
        """Let the request pass.

        Raises:
            Refusal: 403, it was meant for another host, or comes from a page of another origin.
        """
        header = request.headers.get("Host")
        if header is not None and not self._is_ours(header):
            raise Refusal(
                "permission_denied", f"host {header[:100]!r} is not a name of this server; see the setting server_names"
            )
        if request.method not in _HARMLESS:
            self._check_origin(request)

    def _check_origin(self, request: Request) -> None:
        origin = request.headers.get("Origin")
        is_foreign = origin is not None and urlsplit_host(origin) != (request.headers.get("Host") or "").lower()
        if is_foreign or request.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
            raise Refusal("permission_denied", "requests from pages of another origin are not accepted")

    def _is_ours(self, header: str) -> bool:
        name = _host_name(header)
        return name in self._names or _is_ip_address(name)


def urlsplit_host(origin: str) -> str:
    """``host:port`` of an Origin header, lower case; empty when it is ``null`` or malformed."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def _host_name(header: str) -> str:
    """The name in a Host header, without port and brackets."""
    header = header.strip().lower()
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.partition(":")[0].rstrip(".")


def _is_ip_address(name: str) -> bool:
    # No name can be rebound to us when none was looked up.
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def add_security_headers(response: Response) -> Response:
    """The headers that every answer carries."""
    for name, value in SECURITY_HEADERS.items():
        response.headers.setdefault(name, value)
    return response
