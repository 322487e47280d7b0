"""perf script's text: any chunking, any garbage in between, every good sample comes out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gprof_lite.formats import perf_script
from gprof_lite.formats.perf_script import MAX_FRAMES, MAX_LINE_BYTES, PerfScriptParser, ScriptStacks
from tests.data.profiles import PROPERTY

NODE = b"""\
node 26776/26776    5025125\x20
\t    7fc5ab7c5f20 JS:*f [eval]:1:11 (/tmp/perf-26776.map)
\t          c494db v8::internal::(anonymous namespace)::Invoke (/usr/bin/node)
\t           2724a __libc_start_call_main (/usr/lib/x86_64-linux-gnu/libc.so.6)

"""
NODE_STACK = ("__libc_start_call_main", "v8::internal::(anonymous namespace)::Invoke", "JS:*f [eval]:1:11_[j]")
KERNEL = b"""\
my (app) 1/2 26777/26779          3\x20
\tffffffff81a0012a asm_sysvec_apic_timer_interrupt ([kernel.kallsyms])
\tffffffff81a0012b [unknown] ([unknown])
\t            16c9 main (/tmp/burn it)

"""
KERNEL_STACK = ("main", "[unknown]_[k]", "asm_sysvec_apic_timer_interrupt_[k]")
SWAPPER = b"swapper     0/0      5025125 \n\tffffffff81a0012a default_idle ([kernel.kallsyms])\n\n"


def parse(text: bytes, step: int = 1 << 16, *, periods_are_counts: bool = False) -> ScriptStacks:
    parser = PerfScriptParser(periods_are_counts=periods_are_counts)
    for start in range(0, len(text), step):
        parser.feed(text[start : start + step])
    return parser.finish()


def test_samples_are_counted_by_process_and_stack() -> None:
    parsed = parse(NODE + KERNEL + NODE + SWAPPER)
    assert parsed.stacks == {
        (26776, "node"): {NODE_STACK: 2},
        (26777, "my (app) 1/2"): {KERNEL_STACK: 1},
        (0, "swapper"): {("default_idle_[k]",): 1},
    }
    assert parsed.n_samples == 4
    assert parsed.losses.total == 0


def test_periods_are_counts_when_the_recording_was_reduced() -> None:
    parsed = parse(KERNEL + KERNEL, periods_are_counts=True)
    assert parsed.stacks == {(26777, "my (app) 1/2"): {KERNEL_STACK: 6}}


def test_period_may_be_missing() -> None:
    assert parse(b"sh 7/7 \n\t  10 main (/bin/sh)\n\n").stacks == {(7, "sh"): {("main",): 1}}


def test_missing_count_is_a_bad_line() -> None:
    parsed = parse(b"sh 7/7 \n\t  10 main (/bin/sh)\n\n", periods_are_counts=True)
    assert parsed.losses.counts == {"bad_header_lines": 1, "orphan_stacks": 1}


@pytest.mark.parametrize(
    ("header", "key"),
    [
        pytest.param(b"sh 7/8 1 ", (7, "sh"), id="usual"),
        pytest.param(b"Web Content 7/8 1 ", (7, "Web Content"), id="blank"),
        pytest.param(b"(sd-pam) 7/8 1 ", (7, "(sd-pam)"), id="brackets"),
        pytest.param(b"kworker/0:1-ev 7/8 1 ", (7, "kworker/0:1-ev"), id="slash and digits"),
        pytest.param(b"x 1/2 3:  7/8 1 ", (7, "x 1/2 3:"), id="looks like a header"),
        pytest.param(b"12345 7/8 1 ", (7, "12345"), id="digits only"),
        pytest.param(b"  lead 7/8 1 ", (7, "lead"), id="leading blanks"),
        pytest.param(b"\tab 7/8 1 ", (7, "ab"), id="leading tab"),
        pytest.param(b" 7/8 1 ", (7, "[unknown]"), id="empty"),
        pytest.param(b"a;b 7/8 1 ", (7, "a:b"), id="semicolon"),
        pytest.param(b"\xff\xfe bad 7/8 1 ", (7, "\ufffd\ufffd bad"), id="not UTF-8"),
        pytest.param(b":-1    -1/-1    1 ", (-1, ":-1"), id="nobody"),
        pytest.param(b"sh 7/8 1: ", (7, "sh"), id="colon behind the period"),
    ],
)
def test_names_of_commands(header: bytes, key: tuple[int, str]) -> None:
    for frames in (b"", b"\t 10 main (/bin/sh)\n"):
        parsed = parse(header + b"\n" + frames + b"\n")
        assert list(parsed.stacks) == [key]
        assert parsed.losses.total == 0


def test_line_break_in_a_command_costs_its_first_half() -> None:
    # GIVEN what perf 6.1 prints for prctl(PR_SET_NAME, "a\nb")
    parsed = parse(b"a\nb 7/7   10101010 \n\t 10 main (/bin/sh)\n\n" + NODE)

    # THEN
    assert parsed.stacks == {(7, "b"): {("main",): 1}, (26776, "node"): {NODE_STACK: 1}}
    assert parsed.losses.counts == {"bad_header_lines": 1}
    assert parsed.losses.examples == {"bad_header_lines": ("a",)}


def test_sample_without_frames_still_counts() -> None:
    assert parse(b"sh 7/7 1 \n\n").stacks == {(7, "sh"): {("[unknown]",): 1}}


def test_missing_empty_line_splits_samples_all_the_same() -> None:
    assert parse(NODE.rstrip(b"\n") + b"\n" + NODE).stacks == {(26776, "node"): {NODE_STACK: 2}}


def test_bad_line_inside_a_sample_costs_only_itself() -> None:
    lines = NODE.split(b"\n")
    parsed = parse(b"\n".join([*lines[:2], b"\t garbage", b"\t  10 no module", *lines[2:]]))
    assert parsed.stacks == {(26776, "node"): {NODE_STACK: 1}}
    assert parsed.losses.counts == {"bad_frame_lines": 2}


def test_frames_of_nobody_are_counted_once_for_all() -> None:
    parsed = parse(b"what is this\n\t 10 main (/bin/sh)\n\t 11 _start (/bin/sh)\n\n" + NODE)
    assert parsed.stacks == {(26776, "node"): {NODE_STACK: 1}}
    assert parsed.losses.counts == {"bad_header_lines": 1, "orphan_stacks": 1}


@pytest.mark.parametrize(
    ("end", "stack", "counts"),
    [
        pytest.param(-1, ("[truncated]", *NODE_STACK), {"truncated_samples": 1}, id="before the empty line"),
        pytest.param(-20, ("[truncated]", *NODE_STACK[1:]), {"truncated_samples": 1, "bad_frame_lines": 1}, id="frame"),
    ],
)
def test_text_that_was_cut_off_keeps_the_sample(end: int, stack: tuple[str, ...], counts: dict[str, int]) -> None:
    parsed = parse(NODE[:end])
    assert parsed.stacks == {(26776, "node"): {stack: 1}}
    assert parsed.losses.counts == counts


def test_header_that_was_cut_off_is_not_believed() -> None:
    parsed = parse(b"sh 7/7   502", periods_are_counts=True)
    assert parsed.stacks == {}
    assert parsed.losses.counts == {"bad_header_lines": 1}


def test_endless_line_is_dropped_and_its_neighbours_stay() -> None:
    parsed = parse(NODE + b"x" * (3 * MAX_LINE_BYTES) + b"\n" + NODE)
    assert parsed.stacks == {(26776, "node"): {NODE_STACK: 2}}
    assert parsed.losses.counts == {"long_lines": 1}


def test_endless_text_without_an_empty_line_is_not_kept() -> None:
    parser = PerfScriptParser()
    for _ in range(40):
        parser.feed(b"\t 10 main (/bin/sh)\n" * 1000)
        assert len(parser._rest) <= MAX_LINE_BYTES
    assert parser.finish().losses.counts == {"orphan_stacks": 1}


def test_endless_stack_is_cut_at_its_root() -> None:
    deep = b"sh 7/7 1 \n" + b"\t 10 f (/bin/sh)\n" * (MAX_FRAMES + 5) + b"\n"
    parsed = parse(deep + NODE)
    assert parsed.stacks[7, "sh"] == {("[truncated]", *("f",) * MAX_FRAMES): 1}
    assert parsed.losses.counts == {"truncated_samples": 1}


def test_names_are_forgotten_when_they_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(perf_script, "_MAX_NAMES_BYTES", 100)
    monkeypatch.setattr(perf_script, "_MAX_HEADERS", 3)
    text = b"".join(b"c%d 7/7 1 \n\t 10 f%d (/bin/sh)\n\n" % (n, n) for n in range(50))
    assert parse(text * 2).stacks == {(7, f"c{n}"): {(f"f{n}",): 2} for n in range(50)}


def test_brackets_without_end_take_no_time() -> None:
    # A pattern that tries all of them would take minutes; this only has to end.
    line = b"\t 10 " + b" (/" * 80_000
    assert parse(NODE + b"sh 7/7 1 \n" + line + b"\n\n" + NODE).n_samples == 3


# --- fuzz ------------------------------------------------------------------------------------------------------------

GOOD = (NODE, KERNEL, SWAPPER)
# Lines that are neither header nor frame nor empty, from close misses to noise.
garbage_lines = st.one_of(
    st.sampled_from(
        (
            b"a",
            b"node 26776/26776 x",
            b"\t zz main (/bin/sh)",
            b"\t 10 main",
            b"\t10main (/bin/sh)",
            b" ",
            b"\t",
            b"\x00\xff\xfe",
            b"Warning: lost 3 events",
            b"/7 7 7",
            b"addr2line: DWARF error",
        )
    ),
    st.binary(max_size=20).map(lambda noise: b"#" + noise.replace(b"\n", b"?").replace(b"/", b"?")),
)
garbage_blocks = st.lists(garbage_lines, min_size=1, max_size=4).map(lambda lines: b"\n".join(lines) + b"\n")
pieces = st.lists(st.one_of(st.sampled_from(GOOD), garbage_blocks, st.just(b"\n")), max_size=12)


@PROPERTY
@given(pieces, st.integers(1, 400))
def test_every_good_sample_comes_out(several: list[bytes], step: int) -> None:
    # GIVEN good samples with garbage in between, that was not cut off
    parsed = parse(b"".join(several), step)

    # THEN
    expected = {
        (26776, "node"): {NODE_STACK: several.count(NODE)},
        (26777, "my (app) 1/2"): {KERNEL_STACK: several.count(KERNEL)},
        (0, "swapper"): {("default_idle_[k]",): several.count(SWAPPER)},
    }
    assert parsed.stacks == {key: stacks for key, stacks in expected.items() if sum(stacks.values())}


@PROPERTY
@given(pieces, st.lists(st.integers(0, 2000), max_size=6))
def test_chunking_does_not_matter(several: list[bytes], cuts: list[int]) -> None:
    text = b"".join(several)
    parser = PerfScriptParser()
    places = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    for start, end in zip(places, places[1:], strict=False):  # noqa: RUF007 - pieces may be empty
        parser.feed(text[start:end])
    assert parser.finish() == parse(text, 1 << 30)


@PROPERTY
@given(st.binary(max_size=300), st.integers(1, 50))
def test_noise_is_chunked_alike_too(noise: bytes, step: int) -> None:
    assert parse(NODE + noise + b"\n\n" + NODE, step) == parse(NODE + noise + b"\n\n" + NODE)


@PROPERTY
@given(st.data())
def test_damage_never_raises_and_costs_only_what_it_hits(data: st.DataObject) -> None:
    # GIVEN three samples, the middle one with bytes changed (but no header made of it)
    damaged = bytearray(NODE)
    for _ in range(data.draw(st.integers(1, 5))):
        damaged[data.draw(st.integers(0, len(NODE) - 3))] = data.draw(st.sampled_from(b"\x00\xff;( \tz"))
    parsed = parse(KERNEL + bytes(damaged) + KERNEL, data.draw(st.integers(1, 200)))

    # THEN
    assert parsed.stacks[26777, "my (app) 1/2"] == {KERNEL_STACK: 2}
