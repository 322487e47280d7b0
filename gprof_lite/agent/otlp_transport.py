"""The way to an OpenTelemetry receiver: the uploads' own HTTP client, with a token of its own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from gprof_lite.clock import Clock, Deadline
from gprof_lite.delivery.sinks.credentials import TOKEN_VARIABLE as SERVER_TOKEN_VARIABLE
from gprof_lite.delivery.sinks.credentials import Credentials
from gprof_lite.delivery.sinks.http import HttpClient, Post
from gprof_lite.stop import StopToken
from gprof_lite.telemetry.options import TelemetryOptions
from gprof_lite.telemetry.otlp import Receipt, parse_receipt

# Not a setting, as the server's token is none: everybody may read everybody's flags.
TOKEN_VARIABLE: Final = "GPROF_LITE_OTLP_TOKEN"


class HttpOtlpTransport:
    """Fulfils ``telemetry.otlp_outlet.OtlpTransport``. For one thread."""

    def __init__(self, client: HttpClient) -> None:
        self._client = client

    def post(self, path: str, body: bytes, content_type: str, deadline: Deadline, stop: StopToken) -> Receipt:
        """See ``OtlpTransport.post``."""
        receipt = parse_receipt(path, self._client.post(Post(path, body, content_type), deadline, stop))
        return replace(receipt, words=self._client.words(receipt.words.encode()) if receipt.words else "")

    def close(self) -> None:
        self._client.close()


def open_otlp_transport(
    options: TelemetryOptions, clock: Clock, environment: Mapping[str, str] | None = None
) -> HttpOtlpTransport | None:
    """The transport to the configured receiver; None when there is none.

    Raises:
        ConfigError: the token holds what no header may carry.
    """
    if options.otlp_endpoint is None:
        return None
    token = (os.environ if environment is None else environment).get(TOKEN_VARIABLE, "")
    credentials = Credentials(options.otlp_token_file, None, {SERVER_TOKEN_VARIABLE: token})
    return HttpOtlpTransport(HttpClient(options.otlp_endpoint, credentials, clock, ca_file=options.otlp_ca_file))
