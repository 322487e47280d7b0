"""What the kernel says of a loaded program, and running one by hand."""

from __future__ import annotations

import struct
from typing import Final

from gprof_lite.errors import ProbeError
from gprof_lite.probes import system_call
from gprof_lite.probes.object import ProgramStatistics

# struct bpf_prog_info: recursion_misses (u64) at 208, verified_insns (u32) behind it.
_RECURSION_MISSES_AT: Final = 208
_INFO_BYTES: Final = 232


def program_statistics(name: str, fd: int) -> ProgramStatistics:
    """Counters of a program since it was loaded; zeroes where the kernel is older than they."""
    info = system_call.object_info(fd, _INFO_BYTES)
    recursion_misses, verified = struct.unpack_from("<QI", info, _RECURSION_MISSES_AT)
    return ProgramStatistics(name, recursion_misses, verified)


def run_program(fd: int) -> int:
    """Run a raw tracepoint's program once on this CPU, without arguments (Linux 5.10).

    Raises:
        ProbeError: the kernel does not.
    """
    # struct { prog_fd, retval, data_size_in, data_size_out, data_in, data_out, repeat, duration, ctx_size_in,
    #          ctx_size_out, ctx_in, ctx_out, flags, cpu }
    attributes = bytearray(struct.pack("<4I2Q4I2Q2I", fd, *(0,) * 13))
    try:
        system_call.bpf(system_call.PROGRAM_RUN, attributes)
    except OSError as exc:
        raise ProbeError("run", f"the kernel does not run a program by hand: {exc.strerror}") from exc
    returned: int = struct.unpack_from("<I", attributes, 4)[0]
    return returned
