"""Reducing recordings: which samples are one, that nothing else changes, and that no file does harm."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gprof_lite.errors import FormatError
from gprof_lite.formats import perf_data
from gprof_lite.formats.perf_data import Reduction, reduce_perf_data
from gprof_lite.formats.perf_data_layout import FileLayout, read_layout, records
from tests.data import perf_recording as perf
from tests.data.perf_recording import KERNEL_CONTEXT, KERNEL_MODE, SAMPLE_TYPE, USER_CONTEXT, Recording
from tests.data.profiles import PROPERTY

CHAIN = (USER_CONTEXT, 0x1010, 0x1020)
OTHER_CHAIN = (USER_CONTEXT, 0x1010, 0x1030)
START = (perf.comm(7, 7, 0, b"sh"), perf.mmap2(7, 0))


def reduce_file(directory: Path, content: bytes) -> tuple[Reduction, bytes]:
    (directory / "in").write_bytes(content)
    reduction = reduce_perf_data(directory / "in", directory / "out")
    return reduction, (directory / "out").read_bytes()


def counts(content: bytes) -> list[int]:
    """The periods of the samples of a file, in its order."""
    with memoryview(content) as view:
        layout = read_layout(view)
        return [
            struct.unpack_from("<Q", view, start + layout.sample.period)[0]
            for kind, _, start, _ in records(view, layout)
            if kind == 9
        ]


def layout_of(content: bytes) -> FileLayout:
    with memoryview(content) as view:
        return read_layout(view)


def test_equal_samples_become_one_with_their_number(tmp_path: Path) -> None:
    # GIVEN
    samples = [perf.sample(7, 7, time_ns, CHAIN) for time_ns in (10, 20, 30)]
    other = perf.sample(7, 7, 25, OTHER_CHAIN)

    # WHEN
    reduction, content = reduce_file(tmp_path, Recording([*START, *samples[:2], other, samples[2]]).encode())

    # THEN
    assert counts(content) == [3, 1]
    assert (reduction.n_samples, reduction.n_kept, reduction.losses.total) == (4, 2, 0)


def test_all_else_stays_as_it_was(tmp_path: Path) -> None:
    # GIVEN a recording and the one that it should become, but for the periods
    first, repeated = perf.sample(7, 7, 10, CHAIN), perf.sample(7, 7, 20, CHAIN)
    between = (perf.record(68, b""), perf.lost(2, 15), perf.comm(8, 8, 16, b"other"))
    full = Recording([*START, first, *between, repeated, perf.record(68, b"")])
    short = Recording([*START, first, *between, perf.record(68, b"")]).encode()

    # WHEN
    reduction, content = reduce_file(tmp_path, full.encode())

    # THEN
    assert content == short.replace(struct.pack("<Q", perf.PERIOD), struct.pack("<Q", 2)).replace(
        struct.pack("<IIQQ", 1, 136, 0, 2), struct.pack("<IIQQ", 1, 136, 0, perf.PERIOD)
    )
    assert (reduction.source_bytes, reduction.destination_bytes) == (len(full.encode()), len(content))


def test_features_are_where_the_table_says(tmp_path: Path) -> None:
    content = reduce_file(tmp_path, Recording([perf.sample(7, 7, time_ns, CHAIN) for time_ns in range(9)]).encode())[1]
    layout = layout_of(content)
    sections = [struct.unpack_from("<QQ", content, layout.data_end + 16 * index) for index in range(2)]
    assert [content[offset : offset + size] for offset, size in sections] == [b"hostname", b"6.1"]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param([], [2], id="nothing changes"),
        pytest.param([perf.comm(7, 7, 15, b"new name")], [1, 1], id="renamed"),
        pytest.param([perf.comm(7, 7, 12, b"x"), perf.comm(7, 7, 15, b"sh")], [2], id="renamed there and back"),
        pytest.param([perf.comm(7, 7, 15, b"sh", misc=perf.EXEC)], [1, 1], id="exec of the same name"),
        pytest.param([perf.mmap2(7, 15)], [1, 1], id="mapping"),
        pytest.param([perf.kernel_mmap(15)], [1, 1], id="kernel module"),
        pytest.param([perf.ksymbol(15)], [1, 1], id="kernel symbol"),
        pytest.param([perf.exit_(7, 7, 14), perf.fork(7, 1, 7, 1, 15)], [1, 1], id="pid used again"),
        pytest.param([perf.mmap2(8, 15)], [2], id="mapping of another process"),
        pytest.param([perf.comm(7, 9, 15, b"new name")], [2], id="another thread renamed"),
        pytest.param([perf.fork(7, 7, 9, 7, 15)], [2], id="a thread begins"),
        pytest.param([perf.exit_(7, 9, 15)], [2], id="a thread ends"),
        pytest.param([perf.comm(7, 7, 5, b"earlier")], [2], id="change before both"),
        pytest.param([perf.comm(7, 7, 25, b"later")], [2], id="change after both"),
    ],
)
def test_samples_are_one_only_when_nothing_changed_between(
    tmp_path: Path, change: list[bytes], expected: list[int]
) -> None:
    samples = [perf.sample(7, 7, 10, CHAIN), perf.sample(7, 7, 20, CHAIN)]
    # Whatever the place in the file: records of several CPUs are not in the order of time.
    for content in ([*START, *change, *samples], [*START, *samples, *change], [*change, *START, *samples]):
        assert counts(reduce_file(tmp_path, Recording(content).encode())[1]) == expected


@pytest.mark.parametrize(
    ("one", "two", "expected"),
    [
        pytest.param(perf.sample(7, 7, 1, CHAIN), perf.sample(8, 8, 1, CHAIN), [1, 1], id="processes"),
        pytest.param(perf.sample(7, 7, 1, CHAIN), perf.sample(7, 9, 1, CHAIN), [1, 1], id="threads without a name"),
        pytest.param(
            perf.sample(7, 7, 1, CHAIN), perf.sample(7, 7, 1, CHAIN, misc=KERNEL_MODE), [1, 1], id="kernel and user"
        ),
        pytest.param(perf.sample(7, 7, 1, ()), perf.sample(7, 7, 2, ()), [2], id="no chain, same address"),
        pytest.param(
            perf.sample(7, 7, 1, (KERNEL_CONTEXT, 5)), perf.sample(7, 7, 1, (USER_CONTEXT, 5)), [1, 1], id="contexts"
        ),
    ],
)
def test_what_makes_samples_differ(tmp_path: Path, one: bytes, two: bytes, expected: list[int]) -> None:
    assert counts(reduce_file(tmp_path, Recording([one, two]).encode())[1]) == expected


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        pytest.param([perf.comm(7, 9, 0, b"sh")], [2], id="same name"),
        pytest.param([perf.comm(7, 9, 0, b"worker")], [1, 1], id="another name"),
        pytest.param([perf.fork(7, 7, 9, 7, 1)], [2], id="name of the parent"),
        pytest.param([perf.fork(7, 7, 9, 33, 1)], [1, 1], id="parent without a name"),
        pytest.param([perf.fork(7, 7, 9, 7, 1), perf.comm(7, 9, 2, b"worker")], [1, 1], id="named after birth"),
    ],
)
def test_threads_of_one_process_are_one_when_they_have_one_name(
    tmp_path: Path, names: list[bytes], expected: list[int]
) -> None:
    samples = [perf.sample(7, 7, 10, CHAIN), perf.sample(7, 9, 20, CHAIN)]
    assert counts(reduce_file(tmp_path, Recording([*START, *names, *samples]).encode())[1]) == expected


def test_losses_of_the_kernel_are_counted_once(tmp_path: Path) -> None:
    # GIVEN what the kernel says as it loses, and perf's own sum of the same at the end (it has no time)
    content = Recording([perf.lost(3, 5), perf.lost(4, 6), perf.lost_samples(7, 0), perf.lost_samples(2, 9)]).encode()
    assert reduce_file(tmp_path, content)[0].losses.counts == {"lost_samples": 9}


def test_beyond_the_memory_for_chains_samples_stay_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(perf_data, "MAX_KEY_BYTES", 1)
    samples = [perf.sample(7, 7, 10, CHAIN), perf.sample(7, 7, 11, OTHER_CHAIN)] * 3
    assert counts(reduce_file(tmp_path, Recording([*START, *samples]).encode())[1]) == [3, 1, 1, 1]


def test_recording_without_samples(tmp_path: Path) -> None:
    content = Recording([*START]).encode()
    reduction, reduced = reduce_file(tmp_path, content)
    assert reduced == content
    assert reduction.n_samples == 0


def test_the_dummy_event_of_newer_perfs_does_not_matter(tmp_path: Path) -> None:
    # perf 6.12 gives it a sample type without a call chain
    samples = [perf.sample(7, 7, time_ns, CHAIN) for time_ns in range(1, 4)]
    full = Recording([*START, *samples], dummy_types=(perf.SAMPLE_TYPE & ~(1 << 5),))

    reduction, _ = reduce_file(tmp_path, full.encode())

    assert (reduction.n_samples, reduction.n_kept) == (3, 1)


def test_several_events_with_equal_samples_are_reduced(tmp_path: Path) -> None:
    recording = Recording([perf.sample(7, 7, 1, CHAIN)] * 2, sample_types=(SAMPLE_TYPE, SAMPLE_TYPE))
    assert counts(reduce_file(tmp_path, recording.encode())[1]) == [2]


@pytest.mark.parametrize(
    "recording",
    [
        pytest.param(Recording([], header_changes={0: b"2ELIFREP"}), id="big-endian"),
        pytest.param(Recording([], header_changes={8: struct.pack("<Q", 16)}), id="pipe"),
        pytest.param(Recording([]), id="not finished"),
        pytest.param(Recording([*START], header_changes={48: b"\xff" * 8}), id="data beyond the file"),
        pytest.param(Recording([*START], header_changes={40: b"\xff" * 8}), id="data starts beyond the file"),
        pytest.param(Recording([*START], header_changes={40: bytes(8)}), id="data over the header"),
        pytest.param(Recording([*START], header_changes={24: b"\xff" * 8}), id="attributes beyond the file"),
        pytest.param(Recording([*START], header_changes={16: bytes(8)}), id="attributes of no size"),
        pytest.param(Recording([*START], header_changes={32: bytes(8)}), id="no attributes"),
        pytest.param(Recording([*START], header_changes={72: b"\xff" * 32}), id="more features than file"),
        pytest.param(Recording([*START], flags=0), id="no times"),
        pytest.param(Recording([*START], sample_types=(SAMPLE_TYPE & ~(1 << 8),)), id="no periods"),
        pytest.param(Recording([*START], sample_types=(SAMPLE_TYPE | 1 << 13,)), id="stacks to unwind"),
        pytest.param(Recording([*START], sample_types=(SAMPLE_TYPE | 1 << 4,)), id="counter values"),
        pytest.param(Recording([*START], sample_types=(SAMPLE_TYPE, SAMPLE_TYPE | 1 << 3)), id="two kinds of samples"),
        pytest.param(Recording([*START], dummy_types=(SAMPLE_TYPE | 1 << 6,)), id="records that end in two ways"),
        pytest.param(Recording([perf.record(81, bytes(8))]), id="compressed"),
        pytest.param(Recording([perf.record(71, bytes(40))]), id="trace data"),
        pytest.param(Recording([perf.record(22, bytes(40))]), id="chains that come later"),
        pytest.param(Recording([perf.record(3, bytes(8))]), id="short COMM"),
        pytest.param(Recording([perf.record(3, bytes(24))]), id="COMM without ids"),
        pytest.param(Recording([perf.record(7, bytes(32))]), id="FORK without ids"),
        pytest.param(Recording([perf.record(2, bytes(32))]), id="LOST without a number"),
        pytest.param(Recording([perf.record(9, bytes(16))]), id="short sample"),
        pytest.param(Recording([perf.record(9, bytes(40))]), id="sample without a chain"),
        pytest.param(Recording([perf.sample(1, 1, 1, (), n_chain=1 << 40)]), id="endless chain"),
        pytest.param(Recording([perf.record(68, b"", size=0)]), id="record of no size"),
        pytest.param(Recording([perf.record(68, b"", size=4000)]), id="record beyond the data"),
        pytest.param(Recording([*START, b"\x09\x00\x00\x00"]), id="half a header"),
    ],
)
def test_what_cannot_be_reduced_is_a_format_error(tmp_path: Path, recording: Recording) -> None:
    with pytest.raises(FormatError):
        reduce_file(tmp_path, recording.encode())


@pytest.mark.parametrize("content", [b"", b"PERFILE2", bytes(103), bytes(4096)])
def test_what_is_no_recording_is_a_format_error(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(FormatError):
        reduce_file(tmp_path, content)


WHOLE = Recording(
    [
        *START,
        perf.fork(7, 7, 9, 7, 3),
        *[perf.sample(7, tid, time_ns, CHAIN) for tid in (7, 9) for time_ns in (10, 20)],
        perf.lost(1, 21),
        perf.exit_(7, 7, 30),
    ]
).encode()


@PROPERTY
@given(cut=st.integers(0, len(WHOLE) - 1))
def test_truncated_file_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    _reduce_or_refuse(tmp_path_factory, WHOLE[:cut])


@PROPERTY
@given(changes=st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), min_size=1, max_size=6))
def test_damaged_file_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int]]
) -> None:
    content = bytearray(WHOLE)
    for place, byte in changes:
        content[place] = byte
    _reduce_or_refuse(tmp_path_factory, bytes(content))


def _reduce_or_refuse(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    try:
        reduction, reduced = reduce_file(tmp_path_factory.getbasetemp(), content)
    except FormatError:
        return
    assert sum(counts(reduced)) == reduction.n_samples
