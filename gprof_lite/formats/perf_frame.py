"""The name of one frame from what ``perf script`` says of it: symbol, module and, in doubt, the address.

Source of the rules: FlameGraph's stackcollapse-perf.pl (suffixes; the module's name for a symbol that is not known).
"""

from __future__ import annotations

import re
from typing import Final

from gprof_lite.model.frame import INLINED, JIT, KERNEL, UNKNOWN, Frame, clean_frame

_DELETED: Final = " (deleted)"

# What follows the address, real lines of perf 6.1 (the third is from a file with inlined functions resolved):
#   do_syscall_64 ([kernel.kallsyms])
#   v8::internal::(anonymous namespace)::Invoke (/usr/bin/node)
#   shop::Cart<int>::add (inlined)
#   boolean java.util.regex.Matcher.match(int, int) (/tmp/perf-32533.map)
#   main (/tmp/fmt/burn (deleted) x (deleted))
#   [unknown] (//anon)
#   vmx_vcpu_run ([kvm_intel])
# Both parts may hold spaces and brackets. A module is nearly always a path or in square brackets, so it starts at the
# last " (/" or " (["; only where there is none ("inlined", "anon_inode:[perf]") the last " (" decides.
_PLACES: Final = (
    re.compile(r"(?P<symbol>.*) \((?P<module>[/\[].*)\)", re.DOTALL),
    re.compile(r"(?P<symbol>.*) \((?P<module>.*)\)", re.DOTALL),
)

_JIT_MODULE: Final = re.compile(r"(perf-\d+\.map|jitted-\d+-\d+\.so)$")
# Square brackets also stand around areas of user space (proc(5), maps); every other such name is the kernel's, its
# modules', or made up by perf for it ("[bpf_trampoline]").
_USER_AREA: Final = re.compile(r"\[(unknown|vdso\w*|vsyscall|vvar\w*|uprobes|heap|stack.*|anon.*|sigpage|vectors)\]")
_KERNEL_FILE: Final = re.compile(r"\.ko(\.(gz|xz|zst))?$|/(vmlinux|kcore)[^/]*$")


def name_frame(text: str, *, high_address: bool) -> Frame | None:
    """The frame for ``symbol (module)``, or None when the text has another shape.

    ``high_address``: it lies in the upper part of the address space, which is the kernel's on every 64-bit machine.
    That decides only where the module does not.
    """
    place = next((match for pattern in _PLACES if (match := pattern.fullmatch(text))), None)
    if place is None:
        return None
    symbol, module = place["symbol"].strip(), place["module"]
    if module == "inlined":
        return clean_frame(symbol) + INLINED
    module = module.removesuffix(_DELETED)
    suffix = _suffix(module, high_address)
    if symbol in ("", UNKNOWN):
        return clean_frame(_stand_in(module, suffix)) + suffix
    return clean_frame(symbol) + suffix


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
    name = module.rpartition("/")[2].strip("[]")
    # The name of a perf-map file holds a pid: one frame per process would tell nobody anything.
    if not name or suffix == JIT:
        return UNKNOWN
    return f"[{name}]"
