"""The requests that deliver a payload to a Pyroscope."""

from __future__ import annotations

import gzip
from dataclasses import replace

import pytest

from gprof_lite.delivery.payload import Payload, payload_from_profile
from gprof_lite.delivery.sinks.pyroscope import (
    MAX_PROFILE_BYTES,
    MAX_STACKS,
    PyroscopeProtocol,
    ingest_name,
    post_of,
    series_labels,
)
from gprof_lite.errors import Rejected, TooLarge
from gprof_lite.formats.connect_push import PushedSeries, decode_push_json, decode_push_proto
from gprof_lite.formats.pprof import decode_pprof, to_profile
from gprof_lite.model.profile import HOST, SERVICE, Profile, SampleType, Window

PROFILE = Profile(
    SampleType.CPU,
    Window(1_795_214_885_000_000_000, 1_795_214_895_000_000_000),
    {("main", "work"): 7, ("main", "idle"): 3},
    period=10_101_010,
    labels={HOST: "h1", SERVICE: "shop"},
)
PAYLOAD = payload_from_profile(PROFILE, "boot")


def check_series(series: tuple[PushedSeries, ...]) -> None:
    (one,) = series
    assert dict(one.labels) == {"__name__": "process_cpu", "host": "h1", "service_name": "shop"}
    assert one.ids == (str(PAYLOAD.payload_id),)
    assert to_profile(decode_pprof(one.profiles[0], max_bytes=1 << 20)) == PROFILE


def test_push_is_one_series_in_protobuf() -> None:
    # WHEN
    post = post_of(PAYLOAD, PyroscopeProtocol.PUSH)
    # THEN
    assert post.path == "/push.v1.PusherService/Push"
    assert post.content_type == "application/proto"
    assert post.headers == {}
    check_series(decode_push_proto(post.body))


def test_push_json_is_gzipped() -> None:
    # WHEN
    post = post_of(PAYLOAD, PyroscopeProtocol.PUSH_JSON)
    # THEN
    assert post.content_type == "application/json"
    assert post.headers == {"Content-Encoding": "gzip"}
    check_series(decode_push_json(gzip.decompress(post.body)))


def test_ingest_counts_are_nanoseconds() -> None:
    # WHEN
    post = post_of(PAYLOAD, PyroscopeProtocol.INGEST)
    # THEN counts times 1e9 / sampleRate are the weights
    assert post.path == "/ingest"
    assert post.body == b"main;idle 3\nmain;work 7\n"
    assert post.query["name"] == "shop.cpu{host=h1}"
    assert post.query["from"] == "1795214885000000000"
    assert post.query["until"] == "1795214895000000000"
    assert 1_000_000_000 // int(post.query["sampleRate"]) == 1
    assert post.headers == {}


def test_ingest_name_cannot_be_broken_by_names() -> None:
    # GIVEN
    hostile = replace(PROFILE, labels={SERVICE: 'a{b="c",d} e', HOST: "x,y=z}", "k8s.pod/name": "p"})
    # WHEN / THEN
    assert ingest_name(hostile) == "a_b_c_d_e.cpu{host=x_y_z_,k8s_pod_name=p}"


@pytest.mark.parametrize("sample_type", [SampleType.OFF_CPU, SampleType.FAULT_SPACE])
def test_types_that_ingest_does_not_know_are_rejected(sample_type: SampleType) -> None:
    with pytest.raises(Rejected, match="push"):
        ingest_name(replace(PROFILE, sample_type=sample_type))


@pytest.mark.parametrize("sample_type", list(SampleType))
def test_every_type_has_a_name_for_push(sample_type: SampleType) -> None:
    assert dict(series_labels(replace(PROFILE, sample_type=sample_type)))["__name__"]


def test_label_names_are_made_valid_and_empty_ones_left_out() -> None:
    labels = dict(series_labels(replace(PROFILE, labels={"k8s.pod/name": "p", "empty": ""})))
    assert labels == {"__name__": "process_cpu", "service_name": "unknown_service", "k8s_pod_name": "p"}


@pytest.mark.parametrize("protocol", list(PyroscopeProtocol))
def test_too_many_stacks_are_not_sent(protocol: PyroscopeProtocol) -> None:
    # GIVEN
    at_the_limit = {("main", str(number)): 1 for number in range(MAX_STACKS)}
    over_it = {**at_the_limit, ("one", "more"): 1}
    # WHEN / THEN
    assert post_of(with_stacks(at_the_limit), protocol)
    with pytest.raises(TooLarge):
        post_of(with_stacks(over_it), protocol)


@pytest.mark.parametrize("protocol", list(PyroscopeProtocol))
def test_too_many_bytes_are_not_sent(protocol: PyroscopeProtocol) -> None:
    # GIVEN names that do not repeat, a little more than the limit in all
    stacks = {(f"{number:x<1000}",): 1 for number in range(MAX_PROFILE_BYTES // 1000 + 1)}
    # WHEN / THEN
    with pytest.raises(TooLarge):
        post_of(with_stacks(stacks), protocol)


def test_halves_of_a_large_payload_fit() -> None:
    # GIVEN
    payload = with_stacks({("main", str(number)): 1 for number in range(MAX_STACKS + 1)})
    # WHEN / THEN
    for half in payload.split():
        assert post_of(half, PyroscopeProtocol.PUSH)


def test_weights_that_pprof_cannot_hold_are_rejected() -> None:
    with pytest.raises(Rejected):
        post_of(with_stacks({("main",): 1 << 64}), PyroscopeProtocol.PUSH)


def with_stacks(stacks: dict[tuple[str, ...], int]) -> Payload:
    return payload_from_profile(replace(PROFILE, stacks=stacks), "boot")
