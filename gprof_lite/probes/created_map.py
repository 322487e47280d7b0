"""Makes a map of the kernel that several objects share; objects make those of their own when they are loaded."""

from __future__ import annotations

import errno
import struct

from gprof_lite.errors import ProbeError
from gprof_lite.probes import system_call


def create_map(name: str, kind: int, key_bytes: int, value_bytes: int, max_entries: int, flags: int = 0) -> int:
    """A descriptor of the new map; the caller closes it, and the map is gone with its last user.

    Args:
        kind, flags: enum bpf_map_type and BPF_F_ of include/uapi/linux/bpf.h.

    Raises:
        ProbeError: the kernel refuses.
    """
    # map_type, key_size, value_size, max_entries, map_flags, inner_map_fd, numa_node, map_name[16]
    attributes = struct.pack("<7I16s", kind, key_bytes, value_bytes, max_entries, flags, 0, 0, name.encode()[:15])
    try:
        return system_call.bpf(system_call.MAP_CREATE, attributes)
    except OSError as exc:
        hint = "run as root, or with CAP_BPF" if exc.errno in (errno.EPERM, errno.EACCES) else ""
        raise ProbeError(name, f"its map cannot be made: {exc.strerror}", hint=hint) from exc
