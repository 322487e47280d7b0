"""Delivery: all that the agent sees of it. Hand over a profile, and forget it."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from gprof_lite.clock import Clock, Deadline
from gprof_lite.config import byte_size, duration_s, http_url, one_of, path, setting, some_text
from gprof_lite.delivery.payload import payload_from_profile
from gprof_lite.delivery.retry import RetryPolicy
from gprof_lite.delivery.sinks.contract import Sink
from gprof_lite.delivery.sinks.credentials import Credentials
from gprof_lite.delivery.sinks.file import FileSink
from gprof_lite.delivery.sinks.http import HttpClient
from gprof_lite.delivery.sinks.pyroscope import PyroscopeProtocol, PyroscopeSink
from gprof_lite.delivery.spool import Spool, SpoolQuota
from gprof_lite.delivery.spool_statistics import SpoolStatistics
from gprof_lite.delivery.uploader import Uploader, UploaderState, UploaderStatistics
from gprof_lite.errors import ConfigError, SpoolError
from gprof_lite.host.facts import read_host_facts
from gprof_lite.model.profile import HOST, Profile
from gprof_lite.stop import StopToken

logger = logging.getLogger(__name__)

PYROSCOPE: Final = "pyroscope"
FILE: Final = "file"

_FLUSH_CHECK_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class DeliveryOptions:
    """Where profiles go, what proves who we are, and how much may wait on disk.

    A token itself is no setting: see ``sinks.credentials``.
    """

    server: str = setting(
        "http://127.0.0.1:4040", read=http_url(), help="profile server: ours or a Grafana Pyroscope", metavar="URL"
    )
    sink: str = setting(
        PYROSCOPE, read=one_of(PYROSCOPE, FILE), help="where profiles go: the server, or files in --sink-directory"
    )
    pyroscope_protocol: str = setting(
        PyroscopeProtocol.PUSH.value,
        read=one_of(*(protocol.value for protocol in PyroscopeProtocol)),
        help="push (pprof by the push API), push-json (the same in JSON) or ingest (collapsed stacks by /ingest)",
    )
    server_token_file: Path | None = setting(
        None, read=path(), help="file with the bearer token; or set the variable GPROF_LITE_SERVER_TOKEN"
    )
    server_basic_auth_file: Path | None = setting(None, read=path(), help="file with user:password, instead of a token")
    server_tenant: str | None = setting(
        None, read=some_text(), help="tenant of a Pyroscope that has several (X-Scope-OrgID)"
    )
    server_ca_file: Path | None = setting(None, read=path(), help="PEM file with the CA that signed the server's name")
    upload_timeout_s: float = setting(
        30.0,
        # A Pyroscope writes to object storage before it answers, and a retry after a timeout counts twice (wire.md).
        read=duration_s(15.0, 600.0),
        help="for one upload, from look-up to answer",
        metavar="DURATION",
    )
    spool_directory: Path = setting(
        Path("/var/lib/gprof-lite/spool"), read=path(), help="where profiles wait for the server; its own directory"
    )
    spool_max_bytes: int = setting(
        256 << 20, read=byte_size(1 << 20), help="of the spool on disk; the oldest profiles go first", metavar="SIZE"
    )
    spool_max_age_s: float = setting(
        86400.0, read=duration_s(60.0), help="profiles that wait longer than this are dropped", metavar="DURATION"
    )
    sink_directory: Path = setting(Path("/var/lib/gprof-lite/profiles"), read=path(), help="for --sink file")
    sink_max_bytes: int = setting(
        1 << 30, read=byte_size(1 << 20), help="of --sink-directory; the oldest files go first", metavar="SIZE"
    )


@dataclass(frozen=True, slots=True)
class DeliveryStatistics:
    """Where every payload is, and how the uploader fares."""

    spool: SpoolStatistics
    uploader: UploaderStatistics


class Delivery:
    """Takes profiles at any time, whatever disk and network do. Made by ``open_delivery``.

    Args:
        host: the label of profiles that do not name one.
        boot_id: of the running kernel.
    """

    def __init__(self, spool: Spool, uploader: Uploader, host: str, boot_id: str) -> None:
        self._spool = spool
        self._uploader = uploader
        self._host = host
        self._boot_id = boot_id
        self._latest_ns = 0

    def put(self, profile: Profile) -> bool:
        """Spool a profile; it is durable when this returns True. Never raises: a loss is counted and logged.

        A profile without stacks is nothing to deliver; it is not spooled, and nothing is lost.
        """
        if not profile.stacks:
            return True
        if HOST not in profile.labels:
            profile = profile.with_labels(**{HOST: self._host})
        self._latest_ns = max(self._latest_ns, profile.window.start_ns)
        try:
            self._spool.put(payload_from_profile(profile, self._boot_id))
        except SpoolError as exc:
            logger.error("profile lost", extra={"error": str(exc)})
            return False
        return True

    def flush(self, deadline: Deadline, abort: StopToken) -> bool:
        """Wait until the latest window has left the spool. Return whether it has.

        Gives up by the deadline, when ``abort`` is set, and at once when the receiver is known not to take anything:
        what stays in the spool is sent after the next start.
        """
        while self._spool.n_waiting_since(self._latest_ns):
            if deadline.passed or self._uploader.statistics().state is not UploaderState.RUNNING:
                return False
            if abort.wait(deadline.sooner(_FLUSH_CHECK_S)):
                return False
        return True

    def statistics(self) -> DeliveryStatistics:
        """As of now."""
        return DeliveryStatistics(self._spool.statistics(), self._uploader.statistics())


@contextmanager
def open_delivery(
    options: DeliveryOptions,
    host: str,
    clock: Clock,
    *,
    environment: Mapping[str, str] | None = None,
    policy: RetryPolicy | None = None,
) -> Iterator[Delivery]:
    """Spool and uploader, running; both end with the context. The server need not be there.

    Args:
        host: the label of profiles that do not name one.
        environment: where the token may be, see ``sinks.credentials.TOKEN_VARIABLE``; this process's by default.

    Raises:
        SpoolError: the spool directory cannot be used.
        ConfigError: settings contradict each other or name what is not there.
    """
    sink = make_sink(options, clock, os.environ if environment is None else environment)
    quota = SpoolQuota(options.spool_max_bytes, options.spool_max_age_s)
    with Spool(options.spool_directory, quota, clock) as spool:
        uploader = Uploader(spool, sink, clock, upload_timeout_s=options.upload_timeout_s, policy=policy)
        with uploader:
            yield Delivery(spool, uploader, host, read_host_facts().boot_id)


def make_sink(options: DeliveryOptions, clock: Clock, environment: Mapping[str, str]) -> Sink:
    """The sink that the settings ask for. Opens no connection.

    Raises:
        SpoolError: the directory of the file sink cannot be used.
        ConfigError: as ``open_delivery``.
    """
    if options.sink == FILE:
        return FileSink(options.sink_directory, options.sink_max_bytes)
    tenant = options.server_tenant
    if tenant is not None and not (tenant.isascii() and tenant.isprintable()):
        raise ConfigError("server_tenant", tenant, "visible ASCII characters")
    if options.server_ca_file is not None and not options.server_ca_file.is_file():
        raise ConfigError("server_ca_file", str(options.server_ca_file), "a file with certificates")
    credentials = Credentials(options.server_token_file, options.server_basic_auth_file, environment)
    _warn_of_plain_http(options.server, credentials)
    client = HttpClient(options.server, credentials, clock, tenant=tenant, ca_file=options.server_ca_file)
    return PyroscopeSink(client, PyroscopeProtocol(options.pyroscope_protocol))


def _warn_of_plain_http(server: str, credentials: Credentials) -> None:
    parts = urlsplit(server)
    is_local = parts.hostname in ("localhost", "::1") or (parts.hostname or "").startswith("127.")
    if credentials.are_given and parts.scheme == "http" and not is_local:
        logger.warning("credentials travel unencrypted: use https", extra={"server": server})
