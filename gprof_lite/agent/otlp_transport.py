"""Telemetry's way to the OTLP receiver: the HTTP client of the uploads, with a token of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from gprof_lite.clock import Clock, Deadline
from gprof_lite.delivery.sinks.credentials import TOKEN_VARIABLE, Credentials
from gprof_lite.delivery.sinks.http import HttpClient, Post
from gprof_lite.stop import StopToken
from gprof_lite.telemetry.options import TelemetryOptions
from gprof_lite.telemetry.otlp_outlet import OtlpTransport

OTLP_TOKEN_VARIABLE: Final = "GPROF_LITE_OTLP_TOKEN"


class HttpOtlpTransport:
    """An ``OtlpTransport``. For one thread."""

    def __init__(self, client: HttpClient) -> None:
        self._client = client

    def post(self, path: str, body: bytes, content_type: str, deadline: Deadline, stop: StopToken) -> None:
        """Send one request. Raises DeliveryError as ``HttpClient.post``."""
        self._client.post(Post(path, body, content_type), deadline, stop)

    def close(self) -> None:
        self._client.close()


def open_otlp_transport(
    options: TelemetryOptions, clock: Clock, environment: Mapping[str, str]
) -> OtlpTransport | None:
    """The transport to ``--otlp-endpoint``, or None when there is none.

    Raises:
        ConfigError: the token in the environment cannot be sent in a header.
    """
    if options.otlp_endpoint is None:
        return None
    # The profile server's token must not go to another server: the receiver has a variable of its own.
    token = {TOKEN_VARIABLE: environment.get(OTLP_TOKEN_VARIABLE, "")}
    credentials = Credentials(token_file=options.otlp_token_file, environment=token)
    return HttpOtlpTransport(HttpClient(options.otlp_endpoint, credentials, clock, ca_file=options.otlp_ca_file))
