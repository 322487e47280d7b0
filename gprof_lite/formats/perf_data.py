"""Counting equal samples of a ``perf.data`` file before ``perf script`` looks up their symbols.

Looking up names is nearly all of what ``perf script`` costs, and it is done per sample, though a busy host shows the
same call chains again and again. ``reduce_perf_data`` writes a recording with every record but the samples that repeat
an earlier one; the period of those that are left says how many samples each stands for. Read with
``PerfScriptParser(periods_are_counts=True)`` it gives what the full recording gives, sample for sample.
"""

from __future__ import annotations

import mmap
import struct
from array import array
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final

from gprof_lite.errors import FormatError
from gprof_lite.formats import perf_data_layout as kinds
from gprof_lite.formats.perf_data_layout import RECORD, SECTION, SOURCE, Buffer, FileLayout, read_layout, records
from gprof_lite.formats.perf_data_timeline import CHANGES, Timeline
from gprof_lite.model.losses import LossCounter, Losses

LOST_SAMPLES: Final = "lost_samples"

# Call chains remembered, in bytes. A busy host of 16 CPUs has some 20,000 different ones of 200 bytes in a minute; what
# comes after the limit is kept as it is, so the result is larger, not wrong.
MAX_KEY_BYTES: Final = 16 * 1024 * 1024

_U64: Final = struct.Struct("<Q")
_IDS: Final = struct.Struct("<II")
_CPU_MODE: Final = 7  # PERF_RECORD_MISC_CPUMODE_MASK: kernel, user, hypervisor, guest
_CPU_MODE_BITS: Final = 3


@dataclass(frozen=True, slots=True)
class Reduction:
    """What came of a recording.

    Attributes:
        n_samples: in the source; each is still accounted for in the destination.
        n_kept: in the destination.
        losses: ``lost_samples``: what the kernel says it had no room for.
        source_bytes, destination_bytes: sizes of the two files.
    """

    n_samples: int
    n_kept: int
    losses: Losses = field(default_factory=Losses)
    source_bytes: int = 0
    destination_bytes: int = 0


def reduce_perf_data(source: Path, destination: Path) -> Reduction:
    """Write ``destination``, replacing what is there. ``source`` must not change meanwhile.

    Cost: some 2 us of CPU per sample; memory is bounded by ``MAX_KEY_BYTES`` (some 50 MB with what it takes to find
    them) and grows with the records that are no samples.

    Raises:
        FormatError: the source is no recording that can be reduced; use it as it is. The destination may be half
            written.
        OSError: a file cannot be read or written.
    """
    with ExitStack() as stack:
        file = stack.enter_context(open(source, "rb"))
        if file.seek(0, 2) == 0:  # which mmap would refuse with ValueError
            raise FormatError(SOURCE, "an empty file")
        data = stack.enter_context(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        view = stack.enter_context(memoryview(data))
        out = stack.enter_context(open(destination, "w+b"))
        try:
            return _reduce(view, out)
        except struct.error as exc:  # a second net under the checks of every size
            raise FormatError(SOURCE, f"a record is too short: {exc}") from exc


def _reduce(view: Buffer, out: BinaryIO) -> Reduction:
    layout = read_layout(view)
    timeline, losses = _survey(view, layout)
    samples = _SampleTable(view, layout, timeline)
    out.write(view[: layout.data_start])
    copied_to = layout.data_start
    for kind, misc, start, end in records(view, layout):
        if kind == kinds.SAMPLE and samples.is_repeated(misc, start, end):
            # Records between two repeated samples are written in one piece.
            out.write(view[copied_to:start])
            copied_to = end
    out.write(view[copied_to : layout.data_end])
    _write_tail(view, layout, samples.dropped_bytes, out)
    samples.write_counts(out)
    return Reduction(samples.n_samples, samples.n_kept, losses, len(view), out.seek(0, 2))


def _survey(view: Buffer, layout: FileLayout) -> tuple[Timeline, Losses]:
    """First pass: everything but samples."""
    timeline = Timeline(layout.sample)
    losses = LossCounter()
    for kind, misc, start, end in records(view, layout):
        if kind == kinds.SAMPLE:
            continue
        if kind in CHANGES:
            timeline.note(view, kind, misc, start, end)
        elif kind in (kinds.LOST, kinds.LOST_SAMPLES):
            losses.count(LOST_SAMPLES, _lost(view, layout, kind, start, end))
    timeline.settle()
    return timeline, losses.seal()


def _lost(view: Buffer, layout: FileLayout, kind: int, start: int, end: int) -> int:
    """How many samples a record of losses stands for."""
    n_before = 1 if kind == kinds.LOST else 0  # LOST has an id before the number
    place = start + RECORD.size + n_before * _U64.size
    if place + _U64.size > end - layout.sample.trailer_bytes:
        raise FormatError(SOURCE, f"half a record of losses at {start}")
    # perf itself adds LOST_SAMPLES without a time at its end, for all that the kernel told in LOST already.
    (time_ns,) = _U64.unpack_from(view, end - layout.sample.time_from_end)
    if kind == kinds.LOST_SAMPLES and time_ns == 0:
        return 0
    (n_lost,) = _U64.unpack_from(view, place)
    return int(n_lost)


class _SampleTable:
    """Second pass: which samples repeat an earlier one, and how often each of the others was seen."""

    def __init__(self, view: Buffer, layout: FileLayout, timeline: Timeline) -> None:
        self._view = view
        self._layout = layout.sample
        self._timeline = timeline
        self._numbers: dict[tuple[int, bytes], int] = {}
        self._key_bytes = 0
        # Per kept sample: place of its period in the destination, and how many it stands for.
        self._places = array("Q")
        self._counts = array("Q")
        self.n_samples = 0
        self.dropped_bytes = 0

    @property
    def n_kept(self) -> int:
        return len(self._counts)

    def is_repeated(self, misc: int, start: int, end: int) -> bool:
        """Count one sample. True when an earlier one stands for it."""
        layout, view = self._layout, self._view
        if start + layout.fixed_bytes > end:
            raise FormatError(SOURCE, f"a sample of {end - start} bytes at {start}")
        pid, tid = _IDS.unpack_from(view, start + layout.pid_tid)
        (time_ns,) = _U64.unpack_from(view, start + layout.time)
        span = self._timeline.span_of(pid, tid, time_ns)
        key = (span << _CPU_MODE_BITS | misc & _CPU_MODE, self._chain(start, end))
        self.n_samples += 1
        number = self._numbers.get(key)
        if number is not None:
            self._counts[number] += 1
            self.dropped_bytes += end - start
            return True
        if self._key_bytes < MAX_KEY_BYTES:
            self._numbers[key] = len(self._counts)
            self._key_bytes += len(key[1])
        self._places.append(start + layout.period - self.dropped_bytes)
        self._counts.append(1)
        return False

    def _chain(self, start: int, end: int) -> bytes:
        """The call chain with its length, or the address alone when there is no chain."""
        layout, view = self._layout, self._view
        if layout.has_chain:
            begin = start + layout.fixed_bytes
            if begin + _U64.size > end:
                raise FormatError(SOURCE, f"a sample without a call chain at {start}")
            (n_addresses,) = _U64.unpack_from(view, begin)
            if n_addresses > (end - begin) // _U64.size - 1:
                raise FormatError(SOURCE, f"a call chain of {n_addresses} addresses in {end - begin} bytes")
            if n_addresses:
                return bytes(view[begin : begin + (n_addresses + 1) * _U64.size])
        return bytes(view[start + layout.ip : start + layout.ip + _U64.size])

    def write_counts(self, out: BinaryIO) -> None:
        """Put the counts where the periods are."""
        if not self._places:
            return
        out.flush()
        with mmap.mmap(out.fileno(), 0) as written:
            for place, count in zip(self._places, self._counts, strict=True):
                _U64.pack_into(written, place, count)


def _write_tail(view: Buffer, layout: FileLayout, dropped_bytes: int, out: BinaryIO) -> None:
    """What follows the data: the table of features, whose places move, and the features."""
    table_end = layout.data_end + layout.n_features * SECTION.size
    for entry in range(layout.data_end, table_end, SECTION.size):
        offset, size = SECTION.unpack_from(view, entry)
        if offset >= layout.data_end:
            offset -= dropped_bytes
        out.write(SECTION.pack(offset, size))
    out.write(view[table_end:])
    out.seek(kinds.DATA_SIZE_OFFSET)
    out.write(_U64.pack(layout.data_end - layout.data_start - dropped_bytes))
    out.seek(0, 2)
