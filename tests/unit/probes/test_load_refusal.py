"""A refused load is explained in words, with what mends it."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from gprof_lite.probes.load_refusal import explain

VERIFIER = """libbpf: prog 'f': BPF program load failed: Permission denied
libbpf: prog 'f': -- BEGIN PROG LOAD LOG --
0: (79) r1 = *(u64 *)(r0 +0)
R0 invalid mem access 'map_value_or_null'
processed 9 insns (limit 1000000)
-- END PROG LOAD LOG --
libbpf: prog 'f': failed to load: -13
"""
ALL_CAPABILITIES, NONE, ONLY_BPF, BPF_AND_PERFMON = (1 << 41) - 1, 0, 1 << 39, 1 << 39 | 1 << 38


def world(root: Path, *, lockdown: str | None = None, capabilities: int = ALL_CAPABILITIES) -> dict[str, Path]:
    """A /sys and a /proc that say this."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/status").write_text(f"Name:\tx\nCapEff:\t{capabilities:016x}\n")
    (root / "sys/kernel/security").mkdir(parents=True)
    if lockdown is not None:
        (root / "sys/kernel/security/lockdown").write_text(lockdown)
    return {"sys": root / "sys", "proc": root / "proc"}


def test_the_verifiers_verdict_is_taken_out_of_its_log(tmp_path: Path) -> None:
    error = explain("alloc", errno.EACCES, VERIFIER, **world(tmp_path))
    assert str(error) == "probe alloc: the kernel's verifier refuses it: R0 invalid mem access 'map_value_or_null'"
    assert error.verifier_log.startswith("0: (79)")
    assert error.verifier_log.endswith("processed 9 insns (limit 1000000)")


def test_an_interrupted_verifier_has_refused_nothing(tmp_path: Path) -> None:
    words = "-- BEGIN PROG LOAD LOG --\n0: R1=ctx()\n1: (bf) r6 = r1\n-- END PROG LOAD LOG --"
    refusal = explain("probe", errno.EAGAIN, words, release="6.1.0", sys=tmp_path, proc=tmp_path)
    assert refusal.reason == "the kernel was interrupted while it verified it"
    assert refusal.hint == "try again"


def test_what_the_verifier_appends_is_no_verdict(tmp_path: Path) -> None:
    log = "infinite loop detected at insn 37\ncur state: R0=1\nold state: R0=2\nprocessed 1 insns"
    error = explain("x", errno.EINVAL, "", verifier_log=log, **world(tmp_path))
    assert error.reason.endswith("refuses it: infinite loop detected at insn 37")


def test_a_long_log_is_cut_to_its_end(tmp_path: Path) -> None:
    error = explain("x", errno.EINVAL, "", verifier_log="line\n" * 100_000 + "the verdict", **world(tmp_path))
    assert len(error.verifier_log) <= 4000
    assert error.reason.endswith("the verdict")


@pytest.mark.parametrize(
    ("lockdown", "capabilities", "reason", "hint"),
    [
        pytest.param(
            "none integrity [confidentiality]\n", ALL_CAPABILITIES, "lockdown", "lockdown=integrity", id="lockdown"
        ),
        pytest.param(
            "none [integrity] confidentiality\n", NONE, "needs root", "run as root", id="integrity-forbids-nothing"
        ),
        pytest.param(None, NONE, "needs root", "run as root", id="no-capability"),
        pytest.param(None, ONLY_BPF, "CAP_PERFMON", "run as root", id="one-of-two-capabilities"),
        pytest.param(None, BPF_AND_PERFMON, "seccomp", "container", id="two-of-two-capabilities"),
        pytest.param("[none] integrity confidentiality\n", ALL_CAPABILITIES, "seccomp", "container", id="seccomp"),
    ],
)
def test_which_lock_it_is_that_forbids_it(
    tmp_path: Path, lockdown: str | None, capabilities: int, reason: str, hint: str
) -> None:
    error = explain("x", errno.EPERM, "", **world(tmp_path, lockdown=lockdown, capabilities=capabilities))
    assert reason in error.reason
    assert hint in error.hint


def test_missing_types_of_the_kernel_name_what_gives_them(tmp_path: Path) -> None:
    error = explain("x", errno.ESRCH, "libbpf: failed to find valid kernel BTF\n", **world(tmp_path))
    assert "BTF" in error.reason
    assert "python3-bpfcc" in error.hint


def test_an_old_kernel_is_told_what_it_lacks(tmp_path: Path) -> None:
    words = "libbpf: map 'events': failed to create: Invalid argument(-22)\n"
    error = explain("x", errno.EINVAL, words, release="5.4.0-150-generic", **world(tmp_path))
    assert error.reason == "Linux 5.4.0-150-generic is too old"
    assert "5.8" in error.hint


def test_anything_else_is_said_in_libbpfs_last_words(tmp_path: Path) -> None:
    words = "libbpf: first\nlibbpf: map 'events': failed to create: Too many open files(-24)\n"
    error = explain("x", errno.EMFILE, words, release="6.1.0", **world(tmp_path))
    assert error.reason == "Too many open files (map 'events': failed to create: Too many open files(-24))"
