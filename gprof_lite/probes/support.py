"""Which of our probes work on this host, and why not: for ``gprof-lite doctor``. Loads each, attaches none but growth.

Takes about a second where all load; where the kernel describes no types nothing is compiled, only looked for.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gprof_lite.errors import ProbeError
from gprof_lite.probes.growth import open_growth_reader
from gprof_lite.probes.loader import KERNEL_BTF, OBJECTS, LoaderChoice, open_object
from gprof_lite.probes.namespaces import in_first_pid_namespace
from gprof_lite.probes.oom import open_oom_probe

_DISTRIBUTION_BCC: Final = Path("/usr/lib/python3/dist-packages/bcc")
_MODULES: Final = Path("/lib/modules")

# Object -> what it is for, in the words of the report. Growth and OOM kills are tried as they are used.
_LOADED_ONLY: Final = {
    "alloc": "allocations of one process",
    "faults": "page faults of one process",
    "cpu": "CPU time of all processes",
}


@dataclass(frozen=True, slots=True)
class ProbeSupport:
    """One line of the report.

    Attributes:
        works: False when there is no such observation on this host.
        words: how it works, or why it does not.
        hint: the step that mends it, or empty.
    """

    name: str
    works: bool
    words: str
    hint: str = ""


def probe_support(*, objects: Path = OBJECTS, btf: Path = KERNEL_BTF) -> tuple[ProbeSupport, ...]:
    """Try all of them."""
    if not btf.exists():
        return (_without_btf(), _growth())
    loaded_only = (_load(name, words, objects) for name, words in _LOADED_ONLY.items())
    return (*_pids(), _growth(), _oom(), *loaded_only)


def _pids() -> Iterator[ProbeSupport]:
    if not in_first_pid_namespace():
        yield ProbeSupport(
            "pid namespace",
            False,
            "we are in a container's own, and the kernel counts pids in the host's",
            "start the container with the host's pid namespace (docker: --pid=host)",
        )


def _growth() -> ProbeSupport:
    with open_growth_reader() as reader:
        if reader.source == "iterator":
            return ProbeSupport("memory of all processes", True, "BPF iterator, loaded by libbpf")
        return ProbeSupport("memory of all processes", True, f"from /proc; no BPF iterator: {reader.why_not_iterator}")


def _oom() -> ProbeSupport:
    name = "OOM kills"
    try:
        with open_oom_probe(loader=LoaderChoice.LIBBPF):
            return ProbeSupport(name, True, "tracepoint oom:mark_victim, loaded by libbpf")
    except ProbeError as exc:
        return ProbeSupport(name, False, exc.reason, exc.hint)


def _load(name: str, words: str, objects: Path) -> ProbeSupport:
    try:
        with open_object(name, loader=LoaderChoice.LIBBPF, directory=objects) as programs:
            programs.load()
            return ProbeSupport(words, True, "loaded by libbpf")
    except ProbeError as exc:
        return ProbeSupport(words, False, exc.reason, exc.hint)


def _without_btf() -> ProbeSupport:
    """What bcc would need; it is not asked to compile, which takes 4 s and 170 MB."""
    name, release = "allocations, page faults, OOM kills", os.uname().release
    if not _DISTRIBUTION_BCC.is_dir():
        words = "this kernel describes no types (BTF), and bcc is not installed"
        return ProbeSupport(name, False, words, "apt install python3-bpfcc")
    if not (_MODULES / release / "build").exists():
        words = "this kernel describes no types (BTF), and bcc finds no headers of it"
        return ProbeSupport(name, False, words, f"apt install linux-headers-{release}")
    return ProbeSupport(name, True, "compiled on this host by bcc, as this kernel describes no types (BTF)")
