"""The text of ``perf script``, read as a stream: counted stacks come out, the text is never held.

The fields must be ``-F comm,pid,tid,period,ip,sym,dso`` (``period`` may be missing) with ``--no-inline``. A sample is
a line that begins with the command's name, its frames leaf first, and an empty line. Any process can choose its name
(prctl(2), PR_SET_NAME: any 15 bytes, line breaks too), and perf prints it as it is: so every line is judged by
itself, a line that is nothing known is left out and counted, and the samples around it stay.

Whole samples are taken at once by two patterns; whatever does not fit those is taken line by line, with the same
result.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from gprof_lite.formats.perf_frame import name_frame
from gprof_lite.model.frame import TRUNCATED, UNKNOWN, Frame, Stack, clean_frame
from gprof_lite.model.losses import LossCounter, Losses

ScriptKey = tuple[int, str]

# Kinds of losses.
BAD_HEADERS: Final = "bad_header_lines"
BAD_FRAMES: Final = "bad_frame_lines"
ORPHAN_STACKS: Final = "orphan_stacks"  # frames of which no header says whose they are; once per run of lines
LONG_LINES: Final = "long_lines"
TRUNCATED_SAMPLES: Final = "truncated_samples"  # kept, with [truncated] at the root

# C++ symbols reach tens of kilobytes; a line over this is no line of perf.
MAX_LINE_BYTES: Final = 256 * 1024
# kernel.perf_event_max_stack is 127 unless raised; perf prints no more than that many per sample by default.
MAX_FRAMES: Final = 4096
# Names remembered between lines, so that each is made once. Forgotten all at once when over.
_MAX_NAMES_BYTES: Final = 8 * 1024 * 1024
_MAX_HEADERS: Final = 10_000
# A comm is 15 bytes (TASK_COMM_LEN of include/linux/sched.h), three numbers are 41, and some blanks.
_MAX_HEADER_BYTES: Final = 256

# node 26776/26776    5025125
# my (app) 1/2 26777/26777    5025125
# x 1/2 3:  32230/32230   10101010
#  32230/32230   10101010
# :-1    -1/-1      10101010
_HEADER: Final = re.compile(
    rb"(?P<comm>.*?)[ ]+(?P<pid>-?[0-9]{1,10})/-?[0-9]{1,10}(?:[ ]+(?P<period>[0-9]{1,19}):?)?[ ]*", re.DOTALL
)
# 	    7fc5ab7c5f20 JS:*f [eval]:1:11 (/tmp/perf-26776.map)
# 	ffffffff81a0012a asm_sysvec_apic_timer_interrupt ([kernel.kallsyms])
# 	          c494db v8::internal::(anonymous namespace)::Invoke (/usr/bin/node)
_FRAME: Final = re.compile(rb"^\t *(?:(ffff)[0-9a-f]{12}|[0-9a-f]{1,16}) ([^\n]+)$", re.MULTILINE)
# The same without a look at the address, which only ever matters where the module is not known: one group instead of
# two is half the time of all parsing.
_FRAME_REST: Final = re.compile(rb"^\t *[0-9a-f]{1,16} ([^\n]+)$", re.MULTILINE)
_NOWHERE: Final = b" ([unknown])"
_HIGH: Final = b"\tffff"


@dataclass(frozen=True, slots=True)
class ScriptStacks:
    """What a whole text said.

    Attributes:
        stacks: by (pid, comm); stacks root first, without a frame for the comm; numbers of samples.
        losses: lines and samples that could not be taken as they are.
    """

    stacks: Mapping[ScriptKey, Mapping[Stack, int]] = field(default_factory=dict)
    losses: Losses = field(default_factory=Losses)

    @property
    def n_samples(self) -> int:
        return sum(sum(stacks.values()) for stacks in self.stacks.values())


class _BadFrame(Exception):
    """A line that looked like a frame has no symbol and module."""


class _Names(dict[bytes, Frame]):
    """Rest of the line after the address -> frame, for one half of the address space."""

    def __init__(self, *, high_addresses: bool) -> None:
        super().__init__()
        self._high_addresses = high_addresses
        self._n_bytes = 0

    def __missing__(self, rest: bytes) -> Frame:
        frame = name_frame(rest.decode("utf-8", "replace"), high_address=self._high_addresses)
        if frame is None:
            raise _BadFrame
        if self._n_bytes > _MAX_NAMES_BYTES:
            self.clear()
            self._n_bytes = 0
        self._n_bytes += len(rest)
        self[rest] = frame
        return frame


class PerfScriptParser:
    """Takes the text in pieces of any size; the result does not depend on where they were cut.

    ``periods_are_counts``: the period of each sample is the number of samples it stands for, as
    ``formats.perf_data.reduce_perf_data`` leaves it. Otherwise each counts once and the period is ignored.
    """

    def __init__(self, *, periods_are_counts: bool = False) -> None:
        self._periods_are_counts = periods_are_counts
        self._stacks: dict[ScriptKey, dict[Stack, int]] = {}
        self._losses = LossCounter()
        self._names = _Names(high_addresses=False)
        self._high_names = _Names(high_addresses=True)
        self._headers: dict[bytes, tuple[ScriptKey, int] | None] = {}
        self._rest = b""
        self._in_long_line = False
        # The sample in the making, leaf first, and how it is to be counted; for text that is taken line by line.
        self._open: tuple[ScriptKey, int] | None = None
        self._frames: list[Frame] = []
        self._is_deep = False
        self._in_orphans = False

    def feed(self, chunk: bytes) -> None:
        """Take the next piece. Keeps at most about one sample of it."""
        text = self._rest + chunk
        if self._in_long_line:
            text = self._skip_long_line(text)
        # Between two samples there is nothing open, so whole ones can be taken at once up to the last empty line.
        end = text.rfind(b"\n\n")
        if end >= 0:
            for block in text[: end + 1].split(b"\n\n"):
                self._take_block(block)
            text = text[end + 2 :]
        if len(text) > MAX_LINE_BYTES:
            text = self._take_unfinished(text)
        self._rest = text

    def finish(self) -> ScriptStacks:
        """The end of the text: what it said. A sample that was cut off is kept, marked as truncated."""
        lines = self._rest.split(b"\n")
        for line in lines[:-1]:
            self._take_line(line)
        if lines[-1] and not self._in_long_line:
            self._losses.count(BAD_FRAMES if self._open else BAD_HEADERS, example=_example(lines[-1]))
        if self._open:
            self._is_deep = True
            self._close_sample()
        self._rest = b""
        return ScriptStacks(self._stacks, self._losses.seal())

    def _take_block(self, block: bytes) -> None:
        """Lines up to an empty one, which is not in it. The first block may continue an open sample."""
        block = block.removesuffix(b"\n")
        if self._open or self._in_orphans or not self._take_whole_sample(block):
            for line in block.split(b"\n"):
                self._take_line(line)
            self._take_line(b"")

    def _take_whole_sample(self, block: bytes) -> bool:
        """Take a block that is one flawless sample. Otherwise leave it and return False."""
        if len(block) > MAX_LINE_BYTES:
            return False
        first, _, body = block.partition(b"\n")
        header = self._read_header(first)
        n_lines = body.count(b"\n") + 1 if body else 0
        if header is None or n_lines > MAX_FRAMES:
            return False
        try:
            frames = self._read_frames(body)
        except _BadFrame:
            return False
        if len(frames) != n_lines:
            return False
        self._count(header, tuple(reversed(frames)) or (UNKNOWN,))
        return True

    def _read_frames(self, body: bytes) -> list[Frame]:
        """The frames of all lines that are frames, leaf first."""
        names = self._names
        if _NOWHERE in body and _HIGH in body:
            high_names = self._high_names
            return [(high_names if high else names)[rest] for high, rest in _FRAME.findall(body)]
        return [names[rest] for rest in _FRAME_REST.findall(body)]

    def _take_unfinished(self, text: bytes) -> bytes:
        """Much text without an empty line: take its lines one by one and return what is left of the last."""
        *lines, rest = text.split(b"\n")
        for line in lines:
            self._take_line(line)
        if len(rest) > MAX_LINE_BYTES:
            self._losses.count(LONG_LINES, example=_example(rest))
            self._in_long_line = True
            return b""
        return rest

    def _skip_long_line(self, text: bytes) -> bytes:
        _, found, text = text.partition(b"\n")
        self._in_long_line = not found
        return text

    def _take_line(self, line: bytes) -> None:
        if not line:
            self._close_sample()
            self._in_orphans = False
        elif len(line) > MAX_LINE_BYTES:
            self._losses.count(LONG_LINES, example=_example(line))
        elif place := _FRAME.fullmatch(line):
            self._take_frame(line, bool(place[1]), place[2])
        elif header := self._read_header(line):
            self._close_sample()
            self._in_orphans = False
            self._open = header
        else:
            self._losses.count(BAD_FRAMES if self._open else BAD_HEADERS, example=_example(line))

    def _take_frame(self, line: bytes, is_high: bool, rest: bytes) -> None:
        if not self._open:
            self._losses.count(ORPHAN_STACKS, 0 if self._in_orphans else 1, example=_example(line))
            self._in_orphans = True
        elif len(self._frames) >= MAX_FRAMES:
            self._is_deep = True
        else:
            try:
                self._frames.append((self._high_names if is_high else self._names)[rest])
            except _BadFrame:
                self._losses.count(BAD_FRAMES, example=_example(line))

    def _close_sample(self) -> None:
        if self._open:
            if self._is_deep:
                self._losses.count(TRUNCATED_SAMPLES)
                self._frames.append(TRUNCATED)
            self._count(self._open, tuple(reversed(self._frames)) or (UNKNOWN,))
        self._open = None
        self._frames.clear()
        self._is_deep = False

    def _count(self, header: tuple[ScriptKey, int], stack: Stack) -> None:
        key, n_samples = header
        stacks = self._stacks.setdefault(key, {})
        stacks[stack] = stacks.get(stack, 0) + n_samples

    def _read_header(self, line: bytes) -> tuple[ScriptKey, int] | None:
        """Whose sample it is and how many it stands for. Remembered: a host has few threads and many samples."""
        if len(line) > _MAX_HEADER_BYTES:
            return None
        try:
            return self._headers[line]
        except KeyError:
            if len(self._headers) >= _MAX_HEADERS:
                self._headers.clear()
            header = self._headers[line] = self._parse_header(line)
            return header

    def _parse_header(self, line: bytes) -> tuple[ScriptKey, int] | None:
        header = _HEADER.fullmatch(line)
        if header is None:
            return None
        n_samples = int(header["period"] or 0) if self._periods_are_counts else 1
        if n_samples < 1:
            return None
        return (int(header["pid"]), clean_frame(header["comm"].decode("utf-8", "replace"))), n_samples


def _example(line: bytes) -> str:
    return clean_frame(line[:200].decode("utf-8", "replace"))
