"""HttpClient: one POST at a time to one server, with everything that can hang or leak a secret bounded.

Deliberate choices:
- ``trust_env`` is off. Proxies, CA bundles and ``~/.netrc`` of whoever started the agent do not apply to a root daemon:
  .netrc would silently replace our credentials, a proxy variable would send them elsewhere. A private CA is a setting.
- Redirects are not followed: the next host may be anybody.
- The status decides; of the body only the first bytes are read: for their words, and for a caller whose protocol says
  more in them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import urllib3

from gprof_lite import __version__
from gprof_lite.clock import Clock, Deadline
from gprof_lite.delivery.sinks.answer import clean_words, error_of, parse_retry_after
from gprof_lite.delivery.sinks.connection import HeldAdapter
from gprof_lite.delivery.sinks.contract import Unreachable
from gprof_lite.delivery.sinks.credentials import Credentials
from gprof_lite.delivery.sinks.lifeline import Lifeline
from gprof_lite.errors import Transient
from gprof_lite.lean_requests import requests
from gprof_lite.stop import StopToken

# A listening server accepts in milliseconds; a host that is not there should not take the whole upload timeout.
CONNECT_TIMEOUT_S: Final = 5.0
_MAX_BODY_BYTES: Final = 65_536
_REDIRECTS: Final = range(300, 400)


@dataclass(frozen=True, slots=True)
class Post:
    """One request: ``path`` under the server's URL, body and what describes it."""

    path: str
    body: bytes
    content_type: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)


class HttpClient:
    """Owns a requests session. For one thread.

    Args:
        url: of the server, without credentials; may have a path.
        tenant: sent as X-Scope-OrgID where a Pyroscope serves several.
        ca_file: certificates to trust instead of the usual ones.
    """

    def __init__(
        self,
        url: str,
        credentials: Credentials,
        clock: Clock,
        *,
        tenant: str | None = None,
        ca_file: Path | None = None,
    ) -> None:
        self._url = url.rstrip("/")
        self._credentials = credentials
        self._clock = clock
        self._lifeline = Lifeline()
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.verify = str(ca_file) if ca_file else True
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, HeldAdapter(self._lifeline))
        self._fixed_headers = {"User-Agent": f"gprof-lite/{__version__}", "Accept-Encoding": "identity"}
        if tenant:
            self._fixed_headers["X-Scope-OrgID"] = tenant

    def post(self, post: Post, deadline: Deadline, stop: StopToken) -> bytes:
        """Send it. Returning means the server has answered with success; what it said is returned, cut at 64 KiB.

        Raises:
            DeliveryError: as ``Sink.send``.
        """
        headers = {
            **self._fixed_headers,
            **post.headers,
            "Content-Type": post.content_type,
            **self._credentials.headers(),
        }
        with self._lifeline.watched(deadline, stop):
            try:
                return self._exchange(post, headers, deadline)
            # urllib3's own errors come through where requests streams; UnicodeError from a host name of ours.
            except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, UnicodeError) as exc:
                raise (Unreachable if _is_no_connection(exc) else Transient)(self._why(exc)) from exc

    def has_new_credentials(self) -> bool:
        return self._credentials.have_changed()

    def words(self, said: bytes) -> str:
        """What a server said as one line that is safe in a log, without any secret of ours."""
        return self._credentials.redact(clean_words(said))

    def close(self) -> None:
        self._session.close()

    def _exchange(self, post: Post, headers: Mapping[str, str], deadline: Deadline) -> bytes:
        read_s = max(0.001, deadline.remaining_s())
        with self._session.post(
            self._url + post.path,
            params=dict(post.query),
            data=post.body,
            headers=dict(headers),
            timeout=(min(CONNECT_TIMEOUT_S, read_s), read_s),
            allow_redirects=False,
            stream=True,
        ) as response:
            said = self._said_in(response)
            now_s = self._clock.utc_ns() / 1e9
            retry_after_s = parse_retry_after(response.headers.get("Retry-After"), now_s)
            error = error_of(response.status_code, self.words(said), retry_after_s)
        if error is not None:
            raise error
        return said

    def _said_in(self, response: requests.Response) -> bytes:
        if response.status_code in _REDIRECTS:
            target = urlsplit(response.headers.get("Location", ""))
            return f"{target.scheme}://{target.hostname or ''}".encode()
        try:
            return bytes(response.raw.read(_MAX_BODY_BYTES, decode_content=False))
        except (urllib3.exceptions.HTTPError, OSError):
            return b""  # the status has arrived and says it all

    def _why(self, error: BaseException) -> str:
        if self._lifeline.is_cut:
            return "no answer in time"
        root = _chain(error)[-1]
        return self.words(f"{type(error).__name__}: {root}".encode(errors="replace"))


def _chain(error: BaseException) -> list[BaseException]:
    """The error and what caused it, the first cause last."""
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(cause)
    return chain


def _is_no_connection(error: BaseException) -> bool:
    kinds = (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError)
    return any(isinstance(cause, kinds) for cause in _chain(error))
