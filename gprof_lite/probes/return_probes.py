"""Where probes on returns must not be used, because they would end the target.

A return probe replaces the return address on the target's stack. Three kinds of targets do not bear that:

- Go programs: the runtime moves stacks and reads return addresses. (golang/go#22008)
- Programs under seccomp, on kernels whose return probes end in a system call of their own (since Linux 6.11, commit
  ff474a78cef5) that the filter does not know; fixed by cf6cb56ef244 (6.14, and stable 6.12.14 and 6.13.3). Whether
  this kernel has the fix is not read from its version but tried on a child of our own, by ``calibrate``.
- Programs with a shadow stack, on kernels that do not change that one too (before 6.11, commit 488af8ea7131).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gprof_lite.host.identity import PROC, read_process_file

_UPROBE_SYSCALL: Final = (6, 11)
_SECCOMP_FIX: Final = (6, 14)

# proc_pid_status(5): "Seccomp:	2" (0 off, 1 strict, 2 filter), "x86_Thread_features:	shstk wrss"
_SECCOMP: Final = re.compile(rb"^Seccomp:\s+([12])", re.MULTILINE)
_SHADOW_STACK: Final = re.compile(rb"^x86_Thread_features:.*\bshstk\b", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class ReturnProbeRules:
    """What the running kernel's return probes leave unharmed."""

    under_seccomp: bool
    on_shadow_stack: bool

    @classmethod
    def of_kernel(cls, release: str, *, survived_seccomp: bool | None = None) -> ReturnProbeRules:
        """By the kernel's release, as uname(2) has it; by trial, where there was one."""
        version = _version(release)
        by_version = version < _UPROBE_SYSCALL or version >= _SECCOMP_FIX
        return cls(
            under_seccomp=by_version if survived_seccomp is None else survived_seccomp,
            on_shadow_stack=version >= _UPROBE_SYSCALL,
        )

    def refusal(self, pid: int, *, is_go: bool, proc: Path = PROC) -> str:
        """Why a process must have no return probes, in words; empty if it may.

        Raises:
            TargetGone: it ended.
        """
        if is_go:
            return (
                "no return probes on a Go program: its runtime moves stacks, and a probe's return address would end it"
            )
        status = read_process_file(pid, "status", proc)
        if not self.under_seccomp and _SECCOMP.search(status):
            return "no return probes on a process under seccomp: on this kernel its filter would end it"
        if not self.on_shadow_stack and _SHADOW_STACK.search(status):
            return "no return probes on a process with a shadow stack: this kernel cannot keep it in step"
        return ""


def _version(release: str) -> tuple[int, int]:
    match = re.match(r"(\d+)\.(\d+)", release)
    return (int(match[1]), int(match[2])) if match else (0, 0)
