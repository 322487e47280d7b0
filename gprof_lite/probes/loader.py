"""Which loader: libbpf where the kernel describes its types, else bcc, from the same sources.

Importing this costs nothing; bcc (60 MB) is imported only when it is used.
"""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Final

from gprof_lite.probes.libbpf_object import LibbpfObject
from gprof_lite.probes.object import BpfObject
from gprof_lite.stop import StopToken
from gprof_lite.supervise.warden_client import Warden

# bpf/*.bpf.o and the sources they are made of, put there by bpf/Makefile.
OBJECTS: Final = Path(__file__).with_name("objects")
KERNEL_BTF: Final = Path("/sys/kernel/btf/vmlinux")


class LoaderChoice(Enum):
    """Who loads."""

    AUTO = "auto"
    LIBBPF = "libbpf"
    BCC = "bcc"


def open_object(
    name: str,
    *,
    loader: LoaderChoice = LoaderChoice.AUTO,
    warden: Warden | None = None,
    stop: StopToken | None = None,
    directory: Path = OBJECTS,
    btf: Path = KERNEL_BTF,
) -> BpfObject:
    """Open the programs of bpf/NAME.bpf.c; the caller closes it.

    Args:
        warden, stop: bcc compiles in a child of this warden; without one in this process, which costs it 170 MB.

    Raises:
        ProbeError: they are not there or cannot be opened, or the loader is not there.
    """
    if loader is LoaderChoice.LIBBPF or (loader is LoaderChoice.AUTO and btf.exists()):
        return LibbpfObject(name, directory / f"{name}.bpf.o")
    # Not at the top: see above.
    from gprof_lite.probes.bcc_object import BccObject, compile_in_child

    if warden is None or stop is None:
        return BccObject(name, directory)
    return BccObject(name, directory, compile_in_child(warden, stop))
