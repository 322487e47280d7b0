"""A ``perf.data`` file put together record by record, as perf 6.1 lays it out for ``record -e cpu-clock -a -g``."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

SAMPLE_TYPE = 1 << 0 | 1 << 1 | 1 << 2 | 1 << 5 | 1 << 7 | 1 << 8  # IP TID TIME CALLCHAIN CPU PERIOD
SAMPLE_ID_ALL = 1 << 18
HEADER_BYTES, ATTRIBUTE_BYTES = 104, 136
USER_CONTEXT, KERNEL_CONTEXT = (1 << 64) - 512, (1 << 64) - 128  # PERF_CONTEXT_USER, PERF_CONTEXT_KERNEL
USER_MODE, KERNEL_MODE = 2, 1
EXEC = 1 << 13  # PERF_RECORD_MISC_COMM_EXEC
PERIOD = 10_101_010


def record(kind: int, body: bytes, misc: int = 0, size: int | None = None) -> bytes:
    """One record with its header."""
    return struct.pack("<IHH", kind, misc, len(body) + 8 if size is None else size) + body


def _trailer(pid: int, tid: int, time_ns: int) -> bytes:
    return struct.pack("<IIQII", pid, tid, time_ns, 0, 0)


def _text(text: bytes) -> bytes:
    return text + bytes(8 - len(text) % 8)


def sample(
    pid: int, tid: int, time_ns: int, chain: tuple[int, ...], *, misc: int = USER_MODE, n_chain: int | None = None
) -> bytes:
    ip = chain[1] if len(chain) > 1 else 0xABC
    body = struct.pack("<QIIQIIQ", ip, pid, tid, time_ns, 0, 0, PERIOD)
    n_addresses = len(chain) if n_chain is None else n_chain
    return record(9, body + struct.pack(f"<Q{len(chain)}Q", n_addresses, *chain), misc)


def comm(pid: int, tid: int, time_ns: int, name: bytes, *, misc: int = 0) -> bytes:
    return record(3, struct.pack("<II", pid, tid) + _text(name) + _trailer(pid, tid, time_ns), misc)


def mmap2(pid: int, time_ns: int) -> bytes:
    body = struct.pack("<IIQQQIIQQII", pid, pid, 0x1000, 0x1000, 0, 8, 1, 42, 0, 5, 2) + _text(b"/bin/sh")
    return record(10, body + _trailer(pid, pid, time_ns))


def kernel_mmap(time_ns: int) -> bytes:
    body = struct.pack("<IIQQQ", 0xFFFF_FFFF, 0, 0xFFFF_FFFF_8000_0000, 0x1000, 0) + _text(b"[module]")
    return record(1, body + _trailer(0, 0, time_ns))


def ksymbol(time_ns: int) -> bytes:
    return record(17, struct.pack("<QIHH", 0xFFFF_FFFF_8000_0000, 16, 1, 0) + _text(b"bpf_x") + _trailer(0, 0, time_ns))


def fork(pid: int, parent: int, tid: int, parent_tid: int, time_ns: int) -> bytes:
    return record(7, struct.pack("<IIIIQ", pid, parent, tid, parent_tid, time_ns) + _trailer(pid, tid, time_ns))


def exit_(pid: int, tid: int, time_ns: int) -> bytes:
    return record(4, struct.pack("<IIIIQ", pid, 1, tid, 1, time_ns) + _trailer(pid, tid, time_ns))


def lost(n_lost: int, time_ns: int) -> bytes:
    return record(2, struct.pack("<QQ", 1, n_lost) + _trailer(0, 0, time_ns))


def lost_samples(n_lost: int, time_ns: int) -> bytes:
    return record(13, struct.pack("<Q", n_lost) + _trailer(0, 0, time_ns))


@dataclass
class Recording:
    """A file in the making."""

    records: list[bytes]
    sample_types: tuple[int, ...] = (SAMPLE_TYPE,)
    dummy_types: tuple[int, ...] = ()
    flags: int = SAMPLE_ID_ALL
    features: list[bytes] = field(default_factory=lambda: [b"hostname", b"6.1"])
    header_changes: dict[int, bytes] = field(default_factory=dict)

    def encode(self) -> bytes:
        ids = HEADER_BYTES
        attributes = ids + 8
        data_start = attributes + (len(self.sample_types) + len(self.dummy_types)) * (ATTRIBUTE_BYTES + 16)
        data = b"".join(self.records)
        bits = (1 << len(self.features)) - 1 << 2
        sections = (attributes, data_start - attributes, data_start, len(data), 0, 0)
        header = struct.pack("<8sQQ6Q", b"PERFILE2", HEADER_BYTES, ATTRIBUTE_BYTES + 16, *sections)
        header += bits.to_bytes(32, "little")
        for place, change in self.header_changes.items():
            header = header[:place] + change + header[place + len(change) :]
        body = header + struct.pack("<Q", 1) + self._attributes(ids) + data
        return body + self._tail(len(body))

    def _attributes(self, ids: int) -> bytes:
        """Events that are sampled, then perf's dummy (config 9), which carries side-band records only."""
        sampled = b"".join(self._attribute(each, ids, 0) for each in self.sample_types)
        return sampled + b"".join(self._attribute(each, ids, 9) for each in self.dummy_types)

    def _attribute(self, sample_type: int, ids: int, config: int) -> bytes:
        fixed = struct.pack("<IIQQQQQ", 1, ATTRIBUTE_BYTES, config, PERIOD, sample_type, 4, self.flags)
        return fixed + bytes(ATTRIBUTE_BYTES - len(fixed)) + struct.pack("<QQ", ids, 8)

    def _tail(self, start: int) -> bytes:
        place = start + 16 * len(self.features)
        table = b""
        for feature in self.features:
            table += struct.pack("<QQ", place, len(feature))
            place += len(feature)
        return table + b"".join(self.features)
