"""Settings of metrics and events. The limits of the event stream are the leak hunter's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from gprof_lite.config import Address, Reader, duration_s, http_url, listen_address, path, setting, whole_number

OFF: Final = "off"
STDOUT: Final = "stdout"
# YAML reads a bare ``off`` as false.
_OFF_WORDS: Final = (OFF, "false")


def _address_or_off() -> Reader[Address | None]:
    address = listen_address()
    return Reader(f"{address.accepted}, or {OFF}", lambda text: None if text in _OFF_WORDS else address.parse(text))


def _place_for_lines() -> Reader[Path | str | None]:
    def parse(text: str) -> Path | str | None:
        if text in _OFF_WORDS:
            return None
        return STDOUT if text == STDOUT else path().parse(text)

    return Reader(f"a path, {STDOUT} or {OFF}", parse)


def _receiver_url() -> Reader[str]:
    """Tokens go in headers: some vendors' examples put them into the query, where every log would show them."""
    url = http_url()

    def parse(text: str) -> str:
        if urlsplit(text).query or urlsplit(text).fragment:
            raise ValueError("has a query")
        return url.parse(text)

    return Reader(f"{url.accepted}, nor a query", parse, lambda text: url.shown(text).partition("?")[0])


@dataclass(frozen=True, slots=True)
class TelemetryOptions:
    """Where metrics and memory events go.

    The token itself is no setting: it comes from a file or from the variable GPROF_LITE_OTLP_TOKEN.
    """

    metrics_listen: Address | None = setting(
        Address("127.0.0.1", 9090),
        read=_address_or_off(),
        help="where Prometheus finds /metrics; off: nowhere",
        metavar="HOST:PORT",
    )
    metrics_max_processes: int = setting(
        200,
        read=whole_number(1, 100_000),
        help='processes with series of their own at once; the rest share process="other"',
        metavar="N",
    )
    otlp_endpoint: str | None = setting(
        None,
        read=_receiver_url(),
        help="OpenTelemetry receiver (OTLP over HTTP, such as http://127.0.0.1:4318) to push metrics and events to",
        metavar="URL",
    )
    otlp_token_file: Path | None = setting(
        None, read=path(), help="file with its bearer token; or set the variable GPROF_LITE_OTLP_TOKEN"
    )
    otlp_ca_file: Path | None = setting(None, read=path(), help="PEM file with the CA that signed the receiver's name")
    otlp_interval_s: float = setting(
        60.0, read=duration_s(1.0, 86_400.0), help="time between two pushes of metrics", metavar="DURATION"
    )
    otlp_timeout_s: float = setting(
        10.0, read=duration_s(0.1, 300.0), help="for one request to the receiver", metavar="DURATION"
    )
    events_output: Path | str | None = setting(
        None,
        read=_place_for_lines(),
        help="where memory events go as JSON lines: a file (made with mode 0600), stdout, or off",
        metavar="PLACE",
    )
