"""Why a program was not loaded: the kernel's errno and libbpf's words made into an error that says what to do."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path
from typing import Final

from gprof_lite.errors import LoadRejected

SYS: Final = Path("/sys")
PROC: Final = Path("/proc")

_LOG_END_CHARACTERS: Final = 4000
# libbpf 1.x wraps the verifier's words in these lines.
_LOG: Final = re.compile(r"-- BEGIN PROG LOAD LOG --\n(.*?)(?:-- END PROG LOAD LOG --|$)", re.DOTALL)
_OLDEST: Final = (5, 8)
_NOT_A_VERDICT: Final = ("processed ", "verification time", "cur state:", "old state:")
_NO_BTF_WORDS: Final = ("failed to find valid kernel BTF", "Error loading vmlinux BTF")


def explain(
    probe: str,
    number: int,
    words: str,
    *,
    verifier_log: str = "",
    release: str = "",
    sys: Path = SYS,
    proc: Path = PROC,
) -> LoadRejected:
    """The error for a load that failed with this errno and these words of libbpf, which hold the verifier's log."""
    release = release or os.uname().release
    log = _LOG.search(words)
    verifier_log = (log[1] if log else verifier_log).strip()[-_LOG_END_CHARACTERS:]
    if number in (errno.EPERM, errno.EACCES) and not verifier_log:
        reason, hint = _not_permitted(sys, proc)
    elif any(said in words for said in _NO_BTF_WORDS):
        reason = "this kernel describes no types (BTF)"
        hint = "a kernel with CONFIG_DEBUG_INFO_BTF, or bcc and the kernel's headers: apt install python3-bpfcc"
    elif number == errno.EAGAIN:
        reason, hint = "the kernel was interrupted while it verified it", "try again"
    elif verifier_log:
        reason, hint = f"the kernel's verifier refuses it: {_verdict(verifier_log)}", ""
    elif _kernel(release) < _OLDEST:
        reason, hint = f"Linux {release} is too old", "it needs Linux 5.8, for ring buffers between programs and us"
    elif number == errno.ENOMEM:
        reason, hint = "out of memory", ""
    else:
        last = words.strip().rpartition("\n")[2].removeprefix("libbpf: ")
        reason, hint = f"{os.strerror(number)}" + (f" ({last})" if last else ""), ""
    return LoadRejected(probe, reason, verifier_log=verifier_log or words[-_LOG_END_CHARACTERS:].strip(), hint=hint)


def _kernel(release: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", release)[:2])


def _not_permitted(sys: Path, proc: Path) -> tuple[str, str]:
    """Which of the three locks it is."""
    lockdown = _lockdown(sys)
    if lockdown == "confidentiality":
        return (
            "kernel lockdown (confidentiality) forbids programs that read kernel memory",
            "boot with lockdown=integrity or less",
        )
    if not _has_capability(proc):
        return "not permitted: loading BPF programs needs root, or CAP_BPF and CAP_PERFMON", "run as root"
    return (
        "not permitted, although we have CAP_BPF or CAP_SYS_ADMIN: a seccomp filter or security module forbids bpf(2)",
        "in a container: allow the system call bpf, or run it privileged",
    )


def _lockdown(sys: Path) -> str:
    """``none [integrity] confidentiality``: the one in brackets holds. Empty where there is no such thing."""
    try:
        text = (sys / "kernel/security/lockdown").read_text()
    except OSError:
        return ""
    chosen = re.search(r"\[(\w+)\]", text)
    return chosen[1] if chosen else ""


def _has_capability(proc: Path) -> bool:
    """CAP_BPF and CAP_PERFMON (38, 39; Linux 5.8), or CAP_SYS_ADMIN (21)."""
    try:
        status = (proc / "self/status").read_text()
    except OSError:
        return False
    effective = re.search(r"^CapEff:\s*([0-9a-f]+)", status, re.MULTILINE)
    held = int(effective[1], 16) if effective else 0
    return bool(held >> 21 & 1) or bool(held >> 39 & 1 and held >> 38 & 1)


def _verdict(log: str) -> str:
    """The line in which the verifier says what it does not like: the last one that is no appendix to it."""
    lines = [line for line in log.splitlines() if line and not line.startswith(_NOT_A_VERDICT)]
    return lines[-1].strip() if lines else "without a reason"
