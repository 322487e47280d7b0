"""The push request in both codecs."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gprof_lite.errors import FormatError
from gprof_lite.formats.connect_push import PushCodec, PushedSeries, decode_push, encode_push
from tests.data.profiles import PROPERTY

texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=8)


@st.composite
def pushed_series(draw: st.DrawFn) -> PushedSeries:
    profiles = draw(st.lists(st.binary(max_size=20), max_size=3))
    ids = draw(st.lists(texts, min_size=len(profiles), max_size=len(profiles)))
    labels = draw(st.lists(st.tuples(texts, texts), max_size=3))
    return PushedSeries(tuple(labels), tuple(profiles), tuple(ids))


codecs = pytest.mark.parametrize("codec", list(PushCodec))


@codecs
@PROPERTY
@given(series=st.lists(pushed_series(), max_size=3).map(tuple))
def test_what_is_encoded_is_decoded(codec: PushCodec, series: tuple[PushedSeries, ...]) -> None:
    assert decode_push(encode_push(series, codec), codec) == series


def test_json_is_what_the_api_documents() -> None:
    series = PushedSeries((("__name__", "process_cpu"), ("service_name", "x")), (b"\x1f\x8b",), ("an-id",))
    assert json.loads(encode_push([series], PushCodec.JSON)) == {
        "series": [
            {
                "labels": [{"name": "__name__", "value": "process_cpu"}, {"name": "service_name", "value": "x"}],
                "samples": [{"ID": "an-id", "rawProfile": base64.b64encode(b"\x1f\x8b").decode()}],
            }
        ]
    }


def test_protobuf_is_what_the_api_documents() -> None:
    # GIVEN field numbers written out: series 1 {labels 1 {name 1, value 2}, samples 2 {raw_profile 1, ID 2}}
    label = b"\x0a\x01n\x12\x01v"
    sample = b"\x0a\x02\x1f\x8b\x12\x02id"
    inner = b"\x0a" + bytes([len(label)]) + label + b"\x12" + bytes([len(sample)]) + sample
    body = b"\x0a" + bytes([len(inner)]) + inner

    # THEN
    series = PushedSeries((("n", "v"),), (b"\x1f\x8b",), ("id",))
    assert decode_push(body, PushCodec.PROTO) == (series,)
    assert encode_push([series], PushCodec.PROTO) == body


@pytest.mark.parametrize(
    ("sample", "profile"),
    [
        pytest.param({"rawProfile": "/+8="}, b"\xff\xef", id="standard"),
        pytest.param({"rawProfile": "_-8"}, b"\xff\xef", id="url-safe, no padding"),
        pytest.param({"raw_profile": "/+8="}, b"\xff\xef", id="original name"),
        pytest.param({"rawProfile": None}, b"", id="null is the default"),
        pytest.param({}, b"", id="missing is the default"),
        pytest.param({"rawProfile": "/+8=", "extra": {"a": [1]}}, b"\xff\xef", id="unknown fields are ignored"),
    ],
)
def test_json_rules_of_protobuf(sample: dict[str, object], profile: bytes) -> None:
    body = json.dumps({"series": [{"samples": [sample]}], "more": 1}).encode()
    assert decode_push(body, PushCodec.JSON) == (PushedSeries((), (profile,)),)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"{", id="cut off"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b"\xff\xfe", id="no text"),
        pytest.param(b"[" * 100_000, id="nested for ever"),
        pytest.param(b'{"series": 3}', id="series is a number"),
        pytest.param(b'{"series": [3]}', id="a series is a number"),
        pytest.param(b'{"series": [{"labels": {}}]}', id="labels are an object"),
        pytest.param(b'{"series": [{"labels": ["a"]}]}', id="a label is text"),
        pytest.param(b'{"series": [{"labels": [{"name": 3}]}]}', id="a name is a number"),
        pytest.param(b'{"series": [{"labels": [{"name": "\\ud800"}]}]}', id="half a surrogate pair"),
        pytest.param(b'{"series": [{"samples": [{"rawProfile": "a"}]}]}', id="one digit of base64"),
        pytest.param(b'{"series": [{"samples": [{"rawProfile": "a b="}]}]}', id="blank in base64"),
        pytest.param('{"series": [{"samples": [{"rawProfile": "é"}]}]}'.encode(), id="base64 beyond ASCII"),
    ],
)
def test_what_is_no_request_is_a_format_error(body: bytes) -> None:
    with pytest.raises(FormatError):
        decode_push(body, PushCodec.JSON)


@PROPERTY
@given(st.binary(max_size=60))
def test_garbage_is_read_or_refused(body: bytes) -> None:
    for codec in PushCodec:
        try:
            decode_push(body, codec)
        except FormatError:
            pass


def test_ids_belong_to_profiles() -> None:
    with pytest.raises(ValueError):
        PushedSeries((), (b"", b""), ("one",))
