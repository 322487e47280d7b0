"""What kernels offer for uprobes, from files made for the test; tests/host attaches."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from gprof_lite.errors import ProbeError
from gprof_lite.probes.attach import KernelUprobes, ProbeKind, attach_uprobe, attach_uprobes, kernel_uprobes

NEW = KernelUprobes(multi_type=48, session_type=57, perf_type=8)
NAMES = ("BPF_PERF_EVENT", "BPF_TRACE_UPROBE_MULTI", "BPF_TRACE_UPROBE_SESSION")


def write_btf(path: Path, **values: int) -> Path:
    """BTF with nothing but enum bpf_attach_type."""
    strings = b"\0bpf_attach_type\0" + b"".join(name.encode() + b"\0" for name in values)
    members = b"".join(struct.pack("<Ii", strings.index(name.encode()), value) for name, value in values.items())
    types = struct.pack("<III", 1, 6 << 24 | len(values), 4) + members
    header = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(strings))
    path.write_bytes(header + types + strings)
    return path


def write_pmu(directory: Path) -> Path:
    (directory / "format").mkdir(parents=True)
    (directory / "type").write_text("9\n")
    (directory / "format" / "retprobe").write_text("config:3\n")
    return directory


def test_attach_types_are_the_running_kernels(tmp_path: Path) -> None:
    # GIVEN a kernel that numbers them otherwise than the headers
    btf = write_btf(tmp_path / "btf", BPF_PERF_EVENT=41, BPF_TRACE_UPROBE_MULTI=50, BPF_TRACE_UPROBE_SESSION=60)

    # WHEN
    kernel = kernel_uprobes(btf, write_pmu(tmp_path / "uprobe"))

    # THEN
    assert kernel == KernelUprobes(50, 60, perf_type=9, perf_return_bit=3, cookies=True)
    assert (kernel.attach_type(ProbeKind.ENTRY), kernel.attach_type(ProbeKind.SESSION)) == (50, 60)


@pytest.mark.parametrize(("release", "cookies"), [("5.10.0-28-amd64", False), ("5.15.0-generic", True), ("?", False)])
def test_a_kernel_without_btf_has_perf_events_only(tmp_path: Path, release: str, cookies: bool) -> None:
    kernel = kernel_uprobes(tmp_path / "none", write_pmu(tmp_path / "uprobe"), release)

    assert kernel == KernelUprobes(None, None, perf_type=9, perf_return_bit=3, cookies=cookies)


def test_damaged_btf_is_as_none(tmp_path: Path) -> None:
    (tmp_path / "btf").write_bytes(b"\0" * 50)

    assert kernel_uprobes(tmp_path / "btf", tmp_path).multi_type is None


def test_a_kernel_without_uprobes_is_said_to_have_none() -> None:
    bare = KernelUprobes(None, None, perf_type=None)

    with pytest.raises(ProbeError, match="no uprobes"):
        attach_uprobe(0, "/dev/null", 0, 1, kernel=bare)


def test_cookies_are_not_lost_in_silence() -> None:
    old = KernelUprobes(None, None, perf_type=8, cookies=False)

    with pytest.raises(ProbeError, match="no cookies"):
        attach_uprobe(0, "/dev/null", 0, 1, cookie=7, kernel=old)


def test_nothing_to_attach_is_misuse() -> None:
    with pytest.raises(ValueError):
        attach_uprobes(0, 0, (), 1, kind=ProbeKind.ENTRY, kernel=NEW)


def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProbeError, match="missing is gone"):
        attach_uprobe(0, str(tmp_path / "missing"), 0, 1, kernel=NEW)
