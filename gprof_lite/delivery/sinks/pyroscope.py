"""The pyroscope sink: our embedded server, a Grafana Pyroscope, or anything that speaks one of its ingest protocols.

``push`` is the push API with protobuf around a gzipped pprof, ``push-json`` the same in JSON, ``ingest`` the older
``/ingest`` with folded stacks. Facts, limits and traps: wire.md.
"""

from __future__ import annotations

import gzip
import re
from enum import Enum
from typing import Final

from gprof_lite.clock import Deadline
from gprof_lite.delivery.payload import Payload
from gprof_lite.delivery.sinks.http import HttpClient, Post
from gprof_lite.errors import Rejected, TooLarge
from gprof_lite.formats.collapsed import format_stacks
from gprof_lite.formats.connect_push import PushCodec, PushedSeries, encode_push
from gprof_lite.formats.pprof import encode_pprof
from gprof_lite.model.profile import SERVICE, Profile, SampleType
from gprof_lite.stop import StopToken

# Default limits of a Pyroscope tenant (wire.md): more stacks are 400; a profile over the burst is 429 for ever.
MAX_STACKS: Final = 16_000
MAX_PROFILE_BYTES: Final = 2_000_000

PUSH_PATH: Final = "/push.v1.PusherService/Push"
INGEST_PATH: Final = "/ingest"
UNKNOWN_SERVICE: Final = "unknown_service"

# The names its page knows (wire.md). Ours for faults goes where allocations go.
_METRIC_NAMES: Final = {
    SampleType.CPU: "process_cpu",
    SampleType.WALL: "wall",
    SampleType.OFF_CPU: "off_cpu",
    SampleType.LOCK: "mutex",
    SampleType.ALLOC_SPACE: "memory",
    SampleType.INUSE_SPACE: "memory",
    SampleType.FAULT_SPACE: "memory",
}
# The suffixes that /ingest knows; it answers 400 to all others.
_INGEST_SUFFIXES: Final = {
    SampleType.CPU: "cpu",
    SampleType.WALL: "wall",
    SampleType.LOCK: "lock_duration",
    SampleType.ALLOC_SPACE: "alloc_space",
    SampleType.INUSE_SPACE: "inuse_space",
}
# cpu and wall counts of /ingest are multiplied by 1e9 / sampleRate (wire.md): at this rate a count is a nanosecond,
# so that weights arrive exactly, however they were scaled.
_NANOSECOND_RATE: Final = 1_000_000_000
_NOT_IN_LABEL_NAME: Final = re.compile(r"[^a-zA-Z0-9_]")
# These separate the parts of /ingest's name parameter.
_NOT_IN_INGEST_NAME: Final = re.compile(r"[{}=,\"\s]+")
_FASTEST_GZIP: Final = 1


class PyroscopeProtocol(Enum):
    """How a profile is put on the wire; the value is the word of the setting."""

    PUSH = "push"
    PUSH_JSON = "push-json"
    INGEST = "ingest"


class PyroscopeSink:
    """Sends each payload as one request with one series: a batch could half succeed.

    Args:
        client: owned by the sink from now on.
    """

    name = "pyroscope"

    def __init__(self, client: HttpClient, protocol: PyroscopeProtocol) -> None:
        self._client = client
        self._protocol = protocol

    def send(self, payload: Payload, deadline: Deadline, stop: StopToken) -> None:
        """See ``Sink.send``. Sizes are checked before anything is sent."""
        self._client.post(post_of(payload, self._protocol), deadline, stop)

    def has_new_credentials(self) -> bool:
        return self._client.has_new_credentials()

    def close(self) -> None:
        self._client.close()


def post_of(payload: Payload, protocol: PyroscopeProtocol) -> Post:
    """The request that delivers a payload.

    Raises:
        TooLarge: over the limits of a Pyroscope; sent, it would be refused every time.
        Rejected: the protocol cannot carry it.
    """
    if len(payload.profile.stacks) > MAX_STACKS:
        raise TooLarge(f"{len(payload.profile.stacks)} stacks, a Pyroscope takes {MAX_STACKS}")
    if protocol is PyroscopeProtocol.INGEST:
        return _ingest(payload)
    return _push(payload, PushCodec.PROTO if protocol is PyroscopeProtocol.PUSH else PushCodec.JSON)


def series_labels(profile: Profile) -> tuple[tuple[str, str], ...]:
    """The labels of the profile's series, sorted by name, ``__name__`` and ``service_name`` among them."""
    labels = {_NOT_IN_LABEL_NAME.sub("_", name): value for name, value in sorted(profile.labels.items()) if value}
    labels.setdefault(SERVICE, UNKNOWN_SERVICE)
    labels["__name__"] = _METRIC_NAMES[profile.sample_type]
    return tuple(sorted(labels.items()))


def ingest_name(profile: Profile) -> str:
    """``service.suffix{label=value,...}``, free of what would break it.

    Raises:
        Rejected: /ingest has no name for this sample type.
    """
    suffix = _INGEST_SUFFIXES.get(profile.sample_type)
    if suffix is None:
        raise Rejected(f"/ingest has no name for {profile.sample_type.value}; the push protocol has")
    labels = {
        _NOT_IN_LABEL_NAME.sub("_", name): _plain(value)
        for name, value in sorted(profile.labels.items())
        if value and name != SERVICE
    }
    service = _plain(profile.labels.get(SERVICE, "")) or UNKNOWN_SERVICE
    return f"{service}.{suffix}{{{','.join(f'{name}={value}' for name, value in sorted(labels.items()))}}}"


def _plain(text: str) -> str:
    return _NOT_IN_INGEST_NAME.sub("_", text)


def _push(payload: Payload, codec: PushCodec) -> Post:
    try:
        pprof = encode_pprof(payload.profile)
    except ValueError as exc:
        raise Rejected(f"not to be put into pprof: {exc}") from exc
    # The last four bytes of a gzip member are its size unpacked (RFC 1952 section 2.3.1).
    _refuse_large(int.from_bytes(pprof[-4:], "little"))
    series = PushedSeries(series_labels(payload.profile), (pprof,), (str(payload.payload_id),))
    body = encode_push((series,), codec)
    if codec is PushCodec.PROTO:
        # Nearly all of it is gzip already: packing it again costs time and gains nothing.
        return Post(PUSH_PATH, body, codec.value)
    packed = gzip.compress(body, _FASTEST_GZIP, mtime=0)
    return Post(PUSH_PATH, packed, codec.value, headers={"Content-Encoding": "gzip"})


def _ingest(payload: Payload) -> Post:
    profile = payload.profile
    name = ingest_name(profile)
    body = "".join(f"{line}\n" for line in format_stacks(profile.stacks)).encode(errors="replace")
    _refuse_large(len(body))
    query = {
        "name": name,
        "from": str(profile.window.start_ns),
        "until": str(profile.window.end_ns),
        "format": "folded",
        "sampleRate": str(_NANOSECOND_RATE),
        "units": "samples" if profile.sample_type.unit == "nanoseconds" else "bytes",
        "aggregationType": "sum",
        "spyName": "gprof-lite",
    }
    # Not packed: wire.md promises Content-Encoding for push only, and /ingest drops lines it does not understand and
    # still answers 200.
    return Post(INGEST_PATH, body, "text/plain", query=query)


def _refuse_large(size_bytes: int) -> None:
    if size_bytes >= MAX_PROFILE_BYTES:
        raise TooLarge(f"{size_bytes} bytes, a Pyroscope takes {MAX_PROFILE_BYTES}")
