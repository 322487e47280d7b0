"""py-spy's collapsed text."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gprof_lite.formats.pyspy_raw import parse_pyspy_raw
from gprof_lite.model.frame import clean_frame
from tests.data.profiles import PROPERTY

# As py-spy 0.4.1 wrote it for a program of two threads.
RECORDED = """\
Thread.run (threading.py:971);worker (my prog.py:7);Cart.total (my prog.py:3) 12
Thread.run (threading.py:971);worker (my prog.py:7);Cart.price.<locals>.<lambda> (my prog.py:6) 10
<module> (my prog.py:1);dyn (<string>:1) 57
"""


def test_recorded_text() -> None:
    stacks, losses = parse_pyspy_raw(RECORDED.splitlines(keepends=True))
    thread = ("Thread.run (threading.py:971)_[p]", "worker (my prog.py:7)_[p]")
    assert stacks == {
        (*thread, "Cart.total (my prog.py:3)_[p]"): 12,
        (*thread, "Cart.price.<locals>.<lambda> (my prog.py:6)_[p]"): 10,
        ("<module> (my prog.py:1)_[p]", "dyn (<string>:1)_[p]"): 57,
    }
    assert losses.total == 0


def test_equal_stacks_are_added_up() -> None:
    assert parse_pyspy_raw(["f (a.py:1) 2", "f (a.py:1) 3"])[0] == {("f (a.py:1)_[p]",): 5}


def test_frames_that_are_not_python_have_no_suffix() -> None:
    stacks, _ = parse_pyspy_raw(['process 12:"python3 x.py";thread (13): Main;f (a.py:1);read (libc.so.6) 4'])
    assert stacks == {('process 12:"python3 x.py"', "thread (13): Main", "f (a.py:1)_[p]", "read (libc.so.6)"): 4}


def test_bad_line_is_counted_and_its_neighbours_stay() -> None:
    # GIVEN half a line, as a killed py-spy leaves it, a line without weight, and an empty one
    stacks, losses = parse_pyspy_raw(["f (a.py:1) 2", "f (a.py:1);g (a.", "\n", "7", "f (a.py:1) 3"])
    assert stacks == {("f (a.py:1)_[p]",): 5}
    assert losses.counts == {"bad_lines": 2}
    assert losses.examples == {"bad_lines": ("7", "f (a.py:1):g (a.")}


@PROPERTY
@given(st.lists(st.text(max_size=40), max_size=5))
def test_no_text_raises_and_every_frame_is_clean(lines: list[str]) -> None:
    stacks, _ = parse_pyspy_raw([*lines, RECORDED.partition("\n")[0]])
    assert sum(stacks.values()) >= 12
    assert all(clean_frame(frame) == frame for stack in stacks for frame in stack)
