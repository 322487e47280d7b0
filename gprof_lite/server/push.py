"""``POST /push.v1.PusherService/Push``: series of pprof profiles, in JSON or protobuf.

All profiles of a request are read before any is kept: unlike with Pyroscope, a batch cannot half succeed.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from typing import Final
from uuid import UUID

from gprof_lite.errors import FormatError
from gprof_lite.formats.connect_push import PushCodec, PushedSeries, decode_push
from gprof_lite.model.losses import LossCounter
from gprof_lite.server.pprof_profiles import PprofResult, PprofSource, read_pprof
from gprof_lite.server.refusal import invalid
from gprof_lite.server.series import CheckedLabels, Labels, check_labels
from gprof_lite.server.wire_scan import check_field_count

MAX_PROFILES: Final = 1000
# Brackets and commas of a JSON body: a request has few. More would be small values that take much memory.
_MAX_JSON_MARKS: Final = 200_000
_SERIES_FIELD: Final = 1


def read_push(body: bytes, codec: PushCodec, now_ns: int) -> PprofResult:
    """Read a request: all its profiles, and what of them could not be used.

    Raises:
        Refusal: 400, something in it cannot be used; 413, a profile is a gzip bomb.
    """
    _check_size(body, codec)
    try:
        pushed = decode_push(body, codec)
    except FormatError as exc:
        raise invalid(f"unmarshal message: {exc.reason}") from exc
    n_profiles = sum(len(series.profiles) for series in pushed)
    if n_profiles == 0:
        raise invalid("no profiles received")
    if n_profiles > MAX_PROFILES:
        raise invalid(f"{n_profiles} profiles in one request; limit {MAX_PROFILES}")
    results = [result for series in pushed for result in _read_series(series, now_ns)]
    losses = LossCounter()
    for result in results:
        losses.add(result.losses)
    return PprofResult(tuple(profile for result in results for profile in result.profiles), losses.seal())


def _check_size(body: bytes, codec: PushCodec) -> None:
    if codec is PushCodec.PROTO:
        check_field_count(body, nested=(_SERIES_FIELD,))
    elif sum(body.count(mark) for mark in (b"{", b"[", b",")) > _MAX_JSON_MARKS:
        raise invalid("the request has too many elements")


def _read_series(series: PushedSeries, now_ns: int) -> Iterable[PprofResult]:
    checked = check_labels(series.labels)

    def labels(_: Iterable[str]) -> tuple[str, Labels]:
        return checked.metric, checked.labels

    for identifier, data in zip(series.ids, series.profiles, strict=True):
        yield read_pprof(PprofSource(data, labels, now_ns, _delivery(identifier, checked, data)))


def _delivery(identifier: str, checked: CheckedLabels, data: bytes) -> bytes | None:
    """What a repeated delivery has in common with the first: ID, labels and every byte of content.

    The ID alone means nothing: clients send a constant. Without one, equal profiles are two profiles, as in Pyroscope.
    """
    try:
        UUID(identifier)
    except ValueError:
        return None
    digest = blake2b(digest_size=16)
    for part in (identifier.encode(), repr(checked).encode(), data):
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.digest()
