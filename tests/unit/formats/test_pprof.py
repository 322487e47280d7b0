"""pprof: our profiles survive it, anybody's is read, and nothing hostile gets further than a FormatError."""

from __future__ import annotations

import gzip
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gprof_lite.errors import FormatError
from gprof_lite.formats import pprof_reader
from gprof_lite.formats.pprof import decode_pprof, encode_pprof, from_profile, to_profile
from gprof_lite.formats.pprof_messages import PprofProfile, PprofSample, ProfileMessage
from gprof_lite.formats.pprof_writer import write_pprof
from gprof_lite.model.profile import Profile, SampleType, Window
from tests.data.profiles import PROPERTY, profiles

MAX_BYTES = 1 << 20
PROFILE = Profile(
    SampleType.CPU,
    Window(1_795_214_895_000_000_000, 1_795_214_905_000_000_000),
    {
        ("python", "main (shop.py:3)_[p]", "price (my (old) shop.py:12)_[p]"): 30,
        ("python", "main (shop.py:3)_[p]"): 5,
        ("nginx", "std::map<int, int>::find"): 7,
    },
    period=10_101_010,
    labels={"host": "h"},
)


def _message(data: bytes) -> Any:
    message = ProfileMessage()
    message.ParseFromString(gzip.decompress(data))
    return message


@PROPERTY
@given(profiles())
def test_a_profile_comes_back_equal(profile: Profile) -> None:
    assert to_profile(decode_pprof(encode_pprof(profile), max_bytes=MAX_BYTES)) == profile


@PROPERTY
@given(profiles())
def test_equal_profiles_are_equal_bytes(profile: Profile) -> None:
    backwards = Profile(
        profile.sample_type,
        profile.window,
        dict(reversed(profile.stacks.items())),
        profile.period,
        dict(reversed(profile.labels.items())),
        profile.losses,
    )
    assert encode_pprof(backwards) == encode_pprof(profile)


def test_what_readers_insist_on() -> None:
    # GIVEN the rules of wire.md for what Pyroscope takes
    message = _message(encode_pprof(PROFILE))

    # THEN
    assert message.string_table[0] == ""
    assert all(function.id for function in message.function)
    assert all(location.id and location.mapping_id and location.line for location in message.location)
    assert all(len(sample.value) == len(message.sample_type) for sample in message.sample)
    assert message.mapping[0].id
    assert message.period == PROFILE.period
    assert message.duration_nanos == 10_000_000_000
    names = {message.string_table[index] for kind in message.sample_type for index in (kind.type, kind.unit)}
    assert names == {"cpu", "nanoseconds"}


def test_python_functions_carry_file_and_line() -> None:
    message = _message(encode_pprof(PROFILE))
    places = {
        message.string_table[function.name]: (message.string_table[function.filename], function.start_line)
        for function in message.function
    }
    assert places["price (my (old) shop.py:12)_[p]"] == ("my (old) shop.py", 12)
    assert places["std::map<int, int>::find"] == ("", 0)


def test_names_are_not_taken_for_mangled_ones() -> None:
    # go tool pprof cuts brackets off a name that equals its system_name.
    assert not any(function.system_name for function in _message(encode_pprof(PROFILE)).function)


@pytest.mark.parametrize(
    ("sample_type", "period_type"),
    [(SampleType.CPU, ("cpu", "nanoseconds")), (SampleType.INUSE_SPACE, ("space", "bytes"))],
)
def test_period_types_are_those_of_known_clients(sample_type: SampleType, period_type: tuple[str, str]) -> None:
    assert from_profile(Profile(sample_type, Window(1, 2), {})).period_type == period_type


def test_weight_over_int64_is_misuse() -> None:
    with pytest.raises(ValueError):
        encode_pprof(Profile(SampleType.CPU, Window(1, 2), {("a",): 1 << 63}))


# --- reading what others write ---------------------------------------------------------------------------------------


def _foreign() -> Any:
    """Two sample types, a location with an inlined function, one without lines, a label; as Go's runtime writes it."""
    message = ProfileMessage()
    strings = ["", "samples", "count", "cpu", "nanoseconds", "main.work", "main.inlined", "/bin/app", "thread", "t 1"]
    message.string_table.extend(strings)
    message.sample_type.add(type=1, unit=2)
    message.sample_type.add(type=3, unit=4)
    message.mapping.add(id=1, filename=7)
    message.function.add(id=1, name=5)
    message.function.add(id=2, name=6)
    location = message.location.add(id=1, mapping_id=1)
    location.line.add(function_id=2)
    location.line.add(function_id=1)
    message.location.add(id=2, mapping_id=1, address=0x1234)
    message.sample.add(location_id=[1, 2], value=[3, 30]).label.add(key=8, str=9)
    message.sample.add(location_id=[], value=[1, 10]).label.add(key=8, num=42)
    message.time_nanos = 1_000
    message.duration_nanos = 0
    message.period = 10
    return message


def _read(message: Any) -> PprofProfile:
    return decode_pprof(message.SerializeToString(), max_bytes=MAX_BYTES)


def test_foreign_tables_are_resolved() -> None:
    read = _read(_foreign())
    assert read.sample_types == (("samples", "count"), ("cpu", "nanoseconds"))
    assert read.samples == (
        PprofSample(("[app]", "main.work", "main.inlined"), (3, 30), (("thread", "t 1"),)),
        PprofSample(("[unknown]",), (1, 10), (("thread", 42),)),
    )
    assert (read.time_ns, read.duration_ns, read.period, read.period_type) == (1_000, 0, 10, ("", ""))


def test_of_foreign_types_the_one_that_is_ours_is_taken() -> None:
    profile = to_profile(_read(_foreign()))
    assert (profile.sample_type, profile.total, profile.window) == (SampleType.CPU, 40, Window(1_000, 1_001))


def test_type_that_is_not_there_is_named() -> None:
    with pytest.raises(FormatError, match="samples/count, cpu/nanoseconds"):
        to_profile(_read(_foreign()), SampleType.WALL)


def test_negative_weights_are_left_out_and_counted() -> None:
    foreign = _foreign()
    foreign.sample[1].value[1] = -5
    profile = to_profile(_read(foreign))
    assert (profile.total, profile.losses.counts) == (30, {"negative_weights": 1})


def test_samples_with_another_number_of_values_are_left_out_and_counted() -> None:
    foreign = _foreign()
    foreign.sample.add(location_id=[1], value=[1])
    read = _read(foreign)
    assert (len(read.samples), read.n_unusable_samples) == (2, 1)


def test_gzip_in_several_members_is_one_file() -> None:
    data = _foreign().SerializeToString()
    members = gzip.compress(data[:20]) + gzip.compress(data[20:])
    assert decode_pprof(members, max_bytes=MAX_BYTES).samples == _read(_foreign()).samples


def test_sample_labels_survive_writing() -> None:
    read = _read(_foreign())
    again = decode_pprof(write_pprof(read), max_bytes=MAX_BYTES)
    assert sorted(again.samples, key=str) == sorted(read.samples, key=str)


# --- hostile input ---------------------------------------------------------------------------------------------------


def _broken(change: str) -> Any:
    message = _foreign()
    match change:
        case "string 0":
            message.string_table[0] = "x"
        case "no strings":
            del message.string_table[:]
        case "string index":
            message.function[0].name = 99
        case "negative string index":
            message.function[0].name = -1
        case "function id 0":
            message.function[0].id = 0
        case "location id 0":
            message.location[1].id = 0
        case "no such function":
            message.location[0].line[0].function_id = 9
        case "no such location":
            message.sample[0].location_id[0] = 9
        case "label index":
            message.sample[0].label[0].key = 99
        case "comment index":
            message.comment.append(99)
    return message


@pytest.mark.parametrize(
    "change",
    [
        "string 0",
        "no strings",
        "string index",
        "negative string index",
        "function id 0",
        "location id 0",
        "no such function",
        "no such location",
        "label index",
        "comment index",
    ],
)
def test_broken_tables_are_format_errors(change: str) -> None:
    with pytest.raises(FormatError):
        _read(_broken(change))


@pytest.mark.parametrize(
    "comment",
    ["gprof-lite {", "gprof-lite []", 'gprof-lite {"labels": 3}', 'gprof-lite {"losses": {"counts": {"a": "b"}}}'],
)
def test_broken_comment_of_ours_is_a_format_error(comment: str) -> None:
    foreign = _foreign()
    foreign.string_table.append(comment)
    foreign.comment.append(len(foreign.string_table) - 1)
    with pytest.raises(FormatError):
        to_profile(_read(foreign))


@pytest.mark.parametrize(("field", "value"), [("time_nanos", -1), ("duration_nanos", -1), ("period", -1)])
def test_negative_times_make_no_profile(field: str, value: int) -> None:
    foreign = _foreign()
    setattr(foreign, field, value)
    with pytest.raises(FormatError):
        to_profile(_read(foreign))


def test_sum_over_int64_makes_no_profile() -> None:
    foreign = _foreign()
    foreign.sample[0].value[1] = foreign.sample[1].value[1] = (1 << 63) - 1
    del foreign.sample[0].location_id[:]
    with pytest.raises(FormatError):
        to_profile(_read(foreign))


def test_gzip_bomb_is_stopped_at_the_bound() -> None:
    bomb = gzip.compress(bytes(50 << 20))
    with pytest.raises(FormatError, match="more than 1048576 bytes"):
        decode_pprof(bomb, max_bytes=MAX_BYTES)


def test_size_is_bounded_without_gzip_too() -> None:
    with pytest.raises(FormatError, match="more than 10 bytes"):
        decode_pprof(_foreign().SerializeToString(), max_bytes=10)


def test_content_of_exactly_the_bound_is_read() -> None:
    data = _foreign().SerializeToString()
    assert decode_pprof(gzip.compress(data), max_bytes=len(data)).n_bytes == len(data)


def test_millions_of_empty_records_are_refused_before_they_are_objects() -> None:
    empty_samples = b"\x12\x00" * (pprof_reader.MAX_RECORDS + 1)
    with pytest.raises(FormatError, match="records"):
        decode_pprof(empty_samples, max_bytes=1 << 22)


def test_inlined_lines_cannot_multiply_for_ever() -> None:
    # GIVEN a location of 30,000 lines that 300 samples name once each: 9 million frames in 100 KB
    message = _foreign()
    for _ in range(30_000):
        message.location[0].line.add(function_id=1)
    for _ in range(300):
        message.sample.add(location_id=[1], value=[1, 1])
    with pytest.raises(FormatError, match="frames in all"):
        _read(message)


def test_one_endless_stack_is_refused_too() -> None:
    message = _foreign()
    for _ in range(30_000):
        message.location[0].line.add(function_id=1)
    message.sample.add(location_id=[1] * 300, value=[1, 1])
    with pytest.raises(FormatError, match="frames in all"):
        _read(message)


@PROPERTY
@given(st.binary(max_size=200))
def test_garbage_is_a_format_error(data: bytes) -> None:
    with pytest.raises(FormatError):
        decode_pprof(b"\x0a" + data, max_bytes=MAX_BYTES)


@PROPERTY
@given(st.data())
def test_damage_is_read_or_refused(data: st.DataObject) -> None:
    plain = bytearray(_foreign().SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        plain[data.draw(st.integers(0, len(plain) - 1))] = data.draw(st.integers(0, 255))
    try:
        to_profile(decode_pprof(bytes(plain), max_bytes=MAX_BYTES))
    except FormatError:
        pass


@PROPERTY
@given(st.integers(0, 10_000))
def test_truncated_gzip_is_a_format_error(cut: int) -> None:
    whole = encode_pprof(PROFILE)
    with pytest.raises(FormatError):
        decode_pprof(whole[: 2 + cut % (len(whole) - 2)], max_bytes=MAX_BYTES)


def test_broken_gzip_is_a_format_error() -> None:
    with pytest.raises(FormatError, match="broken gzip"):
        decode_pprof(b"\x1f\x8b\x08" + b"\xff" * 40, max_bytes=MAX_BYTES)


@pytest.mark.parametrize("tail", [b"\x13", b"\x80" * 11, b"\x12\xff"])
def test_record_walk_survives_broken_ends(tail: bytes) -> None:
    # GIVEN more than what is parsed without counting first
    data = b"\x32\xf0\xff\x7f" + bytes(0x1FFFF0) + tail
    with pytest.raises(FormatError):
        decode_pprof(data, max_bytes=1 << 24)


def test_compression_keeps_no_time() -> None:
    # Bytes 4 to 7 of a gzip header (RFC 1952, MTIME).
    data = encode_pprof(PROFILE)
    assert data[4:8] == bytes(4)
    assert zlib.decompress(data, 31)
