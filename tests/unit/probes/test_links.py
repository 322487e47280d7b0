"""Where a program belongs, by its section; what is said when there is no such place."""

from __future__ import annotations

from pathlib import Path

import pytest

from gprof_lite.errors import ProbeError
from gprof_lite.probes.links import attach_by_section


def test_without_tracefs_the_words_say_how_to_mount_it(tmp_path: Path) -> None:
    with pytest.raises(ProbeError, match="tracefs is not mounted") as error:
        attach_by_section(-1, "tracepoint/oom/mark_victim", tracefs=(tmp_path / "none",))
    assert "mount -t tracefs" in error.value.hint


def test_a_tracepoint_that_the_kernel_has_not_is_told(tmp_path: Path) -> None:
    (tmp_path / "events").mkdir()
    with pytest.raises(ProbeError, match="no such tracepoint"):
        attach_by_section(-1, "tracepoint/oom/nothing", tracefs=(tmp_path,))


def test_a_section_without_a_place_is_told() -> None:
    with pytest.raises(ProbeError, match="does not say where"):
        attach_by_section(-1, "kprobe")
