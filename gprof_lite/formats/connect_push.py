"""The push request of Pyroscope's API, ``POST /push.v1.PusherService/Push``, in its two codecs.

Shape, in JSON (protobuf has the same; both by the Connect protocol, unary)::

    {"series": [{"labels": [{"name": "service_name", "value": "shop"}],
                 "samples": [{"ID": "<uuid>", "rawProfile": "<base64 of a gzipped pprof>"}]}]}

Source: wire.md; the field numbers are those of Pyroscope's public ``push/v1/push.proto`` and ``types/v1/types.proto``.
The JSON rules are protobuf's own (ProtoJSON): camelCase or the original name, ``null`` is the default, base64 of
either alphabet with or without padding, unknown fields ignored.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from google.protobuf.message import DecodeError

from gprof_lite.errors import FormatError
from gprof_lite.formats.protobuf_schema import Field, build_messages

_MESSAGES: Final = build_messages(
    "gprof_lite.push",
    {
        "PushRequest": (Field(1, "series", "RawProfileSeries", repeated=True),),
        "RawProfileSeries": (
            Field(1, "labels", "LabelPair", repeated=True),
            Field(2, "samples", "RawSample", repeated=True),
        ),
        "LabelPair": (Field(1, "name", "string"), Field(2, "value", "string")),
        "RawSample": (Field(1, "raw_profile", "bytes"), Field(2, "ID", "string")),
    },
)
_SOURCE: Final = "push request"


class PushCodec(Enum):
    """How a request is encoded. The value is its Content-Type."""

    JSON = "application/json"
    PROTO = "application/proto"


@dataclass(frozen=True, slots=True)
class PushedSeries:
    """Profiles under one set of labels.

    Attributes:
        labels: (name, value), in the order given; names may repeat on the wire, which the server refuses.
        profiles: each a pprof as it was sent, usually gzipped.
        ids: one per profile, as sent; a server must not take them for unique. All empty when not given.
    """

    labels: tuple[tuple[str, str], ...]
    profiles: tuple[bytes, ...]
    ids: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.ids:
            object.__setattr__(self, "ids", ("",) * len(self.profiles))
        if len(self.ids) != len(self.profiles):
            raise ValueError(f"{len(self.ids)} ids for {len(self.profiles)} profiles")


def encode_push(series: Iterable[PushedSeries], codec: PushCodec) -> bytes:
    """The body of a push request."""
    if codec is PushCodec.JSON:
        document = {"series": [_series_document(one) for one in series]}
        return json.dumps(document, separators=(",", ":")).encode()
    request = _MESSAGES["PushRequest"]()
    for one in series:
        added = request.series.add()
        for name, value in one.labels:
            added.labels.add(name=name, value=value)
        for identifier, profile in zip(one.ids, one.profiles, strict=True):
            added.samples.add(ID=identifier, raw_profile=profile)
    body: bytes = request.SerializeToString(deterministic=True)
    return body


def decode_push(data: bytes, codec: PushCodec) -> tuple[PushedSeries, ...]:
    """Read a body of a push request. The caller bounds its size; the profiles in it are not looked into.

    Raises:
        FormatError: it is no push request.
    """
    return decode_push_json(data) if codec is PushCodec.JSON else decode_push_proto(data)


def decode_push_proto(data: bytes) -> tuple[PushedSeries, ...]:
    """``decode_push`` for ``application/proto``."""
    request = _MESSAGES["PushRequest"]()
    try:
        request.ParseFromString(data)
    except DecodeError as exc:
        raise FormatError(_SOURCE, f"no protobuf of this kind: {exc}") from exc
    return tuple(
        PushedSeries(
            tuple((label.name, label.value) for label in one.labels),
            tuple(sample.raw_profile for sample in one.samples),
            tuple(sample.ID for sample in one.samples),
        )
        for one in request.series
    )


def decode_push_json(data: bytes) -> tuple[PushedSeries, ...]:
    """``decode_push`` for ``application/json``."""
    try:
        document = json.loads(data)
    # UnicodeDecodeError is a ValueError; RecursionError: ten thousand opening brackets.
    except (ValueError, RecursionError) as exc:
        raise FormatError(_SOURCE, f"no JSON: {exc}") from exc
    return tuple(_read_series(one) for one in _list(_mapping(document, "request"), "series"))


def _series_document(series: PushedSeries) -> dict[str, Any]:
    return {
        "labels": [{"name": name, "value": value} for name, value in series.labels],
        "samples": [
            {"ID": identifier, "rawProfile": base64.b64encode(profile).decode("ascii")}
            for identifier, profile in zip(series.ids, series.profiles, strict=True)
        ],
    }


def _read_series(document: object) -> PushedSeries:
    series = _mapping(document, "series")
    labels = [_mapping(label, "label") for label in _list(series, "labels")]
    samples = [_mapping(sample, "sample") for sample in _list(series, "samples")]
    return PushedSeries(
        tuple((_text(label, "name"), _text(label, "value")) for label in labels),
        tuple(_base64(_text(sample, "rawProfile", "raw_profile")) for sample in samples),
        tuple(_text(sample, "ID") for sample in samples),
    )


def _mapping(value: object, what: str) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise FormatError(_SOURCE, f"{what} is no JSON object")
    return value


def _list(mapping: Mapping[str, object], name: str) -> list[object]:
    value = mapping.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise FormatError(_SOURCE, f"{name!r} is no list")
    return value


def _text(mapping: Mapping[str, object], *names: str) -> str:
    value = next((mapping[name] for name in names if mapping.get(name) is not None), "")
    if not isinstance(value, str):
        raise FormatError(_SOURCE, f"{names[0]!r} is no text")
    try:
        value.encode()
    except UnicodeEncodeError as exc:  # JSON can write half of a surrogate pair; no other codec can
        raise FormatError(_SOURCE, f"{names[0]!r} is no valid Unicode") from exc
    return value


def _base64(text: str) -> bytes:
    standard = text.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(standard + "=" * (-len(standard) % 4), validate=True)
    except (binascii.Error, ValueError) as exc:
        raise FormatError(_SOURCE, f"'rawProfile' is no base64: {exc}") from exc
