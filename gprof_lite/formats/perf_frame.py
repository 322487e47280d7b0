"""The name of one frame from what ``perf script`` says of it: symbol, module and, in doubt, the address.

Source of the rules: FlameGraph's stackcollapse-perf.pl (suffixes; the module's name for a symbol that is not known).
"""

from __future__ import annotations

import re
from typing import Final

from gprof_lite.model.frame import INLINED, JIT, KERNEL, MAX_FRAME_LENGTH, UNKNOWN, Frame, clean_frame

_DELETED: Final = " (deleted)"

_JIT_MODULE: Final = re.compile(r"(perf-\d+\.map|jitted-\d+-\d+\.so)$")
# Square brackets also stand around areas of user space (proc(5), maps); every other such name is the kernel's, its
# modules', or made up by perf for it ("[bpf_trampoline]").
_USER_AREA: Final = re.compile(r"\[(unknown|vdso\w*|vsyscall|vvar\w*|uprobes|heap|stack.*|anon.*|sigpage|vectors)\]")
_KERNEL_FILE: Final = re.compile(r"\.ko(\.(gz|xz|zst))?$|/(vmlinux|kcore)[^/]*$")


# What follows the address; real lines of perf 6.1 (the third is from a file with inlined functions resolved):
#   do_syscall_64 ([kernel.kallsyms])
#   v8::internal::(anonymous namespace)::Invoke (/usr/bin/node)
#   shop::Cart<int>::add (inlined)
#   boolean java.util.regex.Matcher.match(int, int) (/tmp/perf-32533.map)
#   main (/tmp/fmt/burn (deleted) x (deleted))
#   [unknown] (//anon)
#   vmx_vcpu_run ([kvm_intel])
# Both parts may hold spaces and brackets. A module is nearly always a path or in square brackets, so it starts at the
# last " (/" or " (["; only where there is none ("inlined", "anon_inode:[perf]") the last " (" decides.
def name_frame(text: str, *, high_address: bool) -> Frame | None:
    """The frame for ``symbol (module)``, or None when the text has another shape.

    ``high_address``: it lies in the upper part of the address space, which is the kernel's on every 64-bit machine.
    That decides only where the module does not.
    """
    # No pattern: the text may be 256 KiB of " (/", and a pattern that tries them all takes minutes.
    start = max(text.rfind(" (/"), text.rfind(" (["))
    if start < 0:
        start = text.rfind(" (")
    if start < 0 or not text.endswith(")"):
        return None
    symbol, module = text[:start].strip(), text[start + 2 : -1]
    if module == "inlined":
        return _suffixed(symbol, INLINED)
    module = module.removesuffix(_DELETED)
    suffix = _suffix(module, high_address)
    if symbol in ("", UNKNOWN):
        return _suffixed(_stand_in(module, suffix), suffix)
    return _suffixed(symbol, suffix)


def _suffixed(name: str, suffix: str) -> Frame:
    # A frame is bounded with its suffix.
    return clean_frame(name)[: MAX_FRAME_LENGTH - len(suffix)] + suffix


def _suffix(module: str, high_address: bool) -> str:
    if _USER_AREA.fullmatch(module):
        # The one page of user space up there is [vsyscall].
        return KERNEL if high_address and module == UNKNOWN else ""
    if module.startswith("[") or _KERNEL_FILE.search(module):
        return KERNEL
    if _JIT_MODULE.search(module):
        return JIT
    return ""


def _stand_in(module: str, suffix: str) -> str:
    """What stands for a symbol that is not known."""
    name = module.rpartition("/")[2]
    # The name of a perf-map file holds a pid: one frame per process would tell nobody anything.
    if not name or suffix == JIT:
        return UNKNOWN
    return name if name.startswith("[") else f"[{name}]"
