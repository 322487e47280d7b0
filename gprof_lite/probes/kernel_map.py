"""KernelMap: a BPF map by its descriptor, whoever made it; see ``object.BpfMap`` for what its methods promise.

Reading a hash of thousands of entries one by one costs two system calls each, so ``items`` and ``clear`` ask for
batches. Kernels before 5.6, and kinds of map that know no batches, are read key by key.

Source: bpf(2), kernel documentation ``bpf/map_hash.rst``, struct bpf_map_info and bpf_attr in include/uapi/linux/bpf.h.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import struct
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Final

from gprof_lite.errors import ProbeError
from gprof_lite.probes import system_call

# enum bpf_map_type
_ARRAYS: Final = frozenset((2, 6))
_PER_CPU: Final = frozenset((5, 6, 10))

# What one batch may hold: large enough that system calls do not count, small enough to be no memory to speak of.
_BATCH_BYTES: Final = 128 * 1024
_NO_BATCHES: Final = frozenset((errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM, system_call.ENOTSUPP))

_BATCH: Final = struct.Struct("<4Q2I2Q")
_ANY: Final = 0


class MapFull(ProbeError):
    """There is no room for another entry."""


class KernelMap:
    """Reads and writes a map. The descriptor stays its owner's: this closes nothing."""

    def __init__(self, name: str, fd: int) -> None:
        info = system_call.object_info(fd, 24)
        self._type, _, key_bytes, value_bytes, max_entries, _ = struct.unpack("<6I", info)
        self.name = name
        self.fd = fd
        self.key_bytes: int = key_bytes
        self.max_entries: int = max_entries
        self._one_value_bytes: int = value_bytes
        # The kernel pads each CPU's part to 8 bytes, and has a part for each CPU that may ever come.
        self._part_bytes: int = (value_bytes + 7) // 8 * 8
        self._n_parts = n_possible_cpus() if self._type in _PER_CPU else 1
        # Size of a value as it is read and written: of a per-CPU map all parts together.
        self.value_bytes: int = self._part_bytes * self._n_parts if self._type in _PER_CPU else value_bytes

    def lookup(self, key: bytes) -> bytes | None:
        """The value of a key, or None."""
        value = ctypes.create_string_buffer(self.value_bytes)
        if not self._command(system_call.MAP_LOOKUP, key, ctypes.addressof(value)):
            return None
        return value.raw

    def lookup_number(self, index: int) -> bytes:
        """The value at a place of an array, which always has one.

        Raises:
            IndexError: the array is shorter.
        """
        value = self.lookup(struct.pack("<I", index))
        if value is None:
            raise IndexError(f"{self.name}[{index}]")
        return value

    def update(self, key: bytes, value: bytes) -> None:
        """Put a value in, new or not.

        Raises:
            MapFull: there is no room.
        """
        if len(value) != self.value_bytes:
            raise ValueError(f"a value of {self.name} has {self.value_bytes} bytes, not {len(value)}")
        buffer = ctypes.create_string_buffer(value, len(value))
        try:
            self._command(system_call.MAP_UPDATE, key, ctypes.addressof(buffer))
        except OSError as exc:
            if exc.errno in (errno.E2BIG, errno.ENOSPC):
                raise MapFull(self.name, f"the map is full ({self.max_entries} entries)") from exc
            raise

    def delete(self, key: bytes) -> bool:
        """Take an entry out; False when there is none."""
        return self._command(system_call.MAP_DELETE, key, 0)

    def keys(self) -> Iterator[bytes]:
        """All keys. One that is deleted meanwhile may make the kernel start again: none is given twice."""
        given: set[bytes] = set()
        following = self._next_key(None)
        while following is not None and len(given) < 2 * self.max_entries:
            if following not in given:
                given.add(following)
                yield following
            following = self._next_key(following)

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """All entries. One that comes or goes meanwhile may be among them or not."""
        try:
            yield from self._batches(system_call.MAP_LOOKUP_BATCH)
        except _NotInBatches:
            for key in self.keys():
                value = self.lookup(key)
                if value is not None:
                    yield key, value

    def delete_many(self, keys: Iterable[bytes]) -> int:
        """Take several out and return how many were there."""
        wanted = list(keys)
        n = self._delete_batch(wanted)
        return n + sum(self.delete(key) for key in wanted[n:])

    def _delete_batch(self, keys: list[bytes]) -> int:
        """How many were deleted at once: all, or those before the first that is not there."""
        if not keys:
            return 0
        buffer = ctypes.create_string_buffer(b"".join(keys), len(keys) * self.key_bytes)
        attributes = bytearray(_BATCH.pack(0, 0, ctypes.addressof(buffer), 0, len(keys), self.fd, 0, 0))
        try:
            system_call.bpf(system_call.MAP_DELETE_BATCH, attributes)
        except OSError as exc:
            if exc.errno in _NO_BATCHES:
                return 0
            if exc.errno != errno.ENOENT:
                raise
        n_deleted: int = _BATCH.unpack(attributes)[4]
        return n_deleted

    def clear(self) -> None:
        """Empty a hash, or set all of an array to zero."""
        if self._type in _ARRAYS:
            blank = bytes(self.value_bytes)
            for index in range(self.max_entries):
                self.update(struct.pack("<I", index), blank)
            return
        try:
            for _ in self._batches(system_call.MAP_LOOKUP_AND_DELETE_BATCH):
                pass
        except _NotInBatches:
            self.delete_many(self.keys())

    def per_cpu(self, value: bytes) -> list[bytes]:
        """The values of all possible CPUs, out of one value of a per-CPU map."""
        starts = range(0, self._part_bytes * self._n_parts, self._part_bytes)
        return [value[start : start + self._one_value_bytes] for start in starts]

    def memory_bytes(self) -> int:
        """Kernel memory it takes, as the kernel states it (of what is allocated now, since 6.4; before, at most)."""
        stated = re.search(r"^memlock:\s*(\d+)", Path(f"/proc/self/fdinfo/{self.fd}").read_text(), re.MULTILINE)
        return int(stated[1]) if stated else 0

    def _command(self, command: int, key: bytes, value_at: int) -> bool:
        """Whether the key was there. struct { map_fd; key; value; flags }."""
        if len(key) != self.key_bytes:
            raise ValueError(f"a key of {self.name} has {self.key_bytes} bytes, not {len(key)}")
        buffer = ctypes.create_string_buffer(key, len(key))
        try:
            system_call.bpf(command, struct.pack("<IxxxxQQQ", self.fd, ctypes.addressof(buffer), value_at, _ANY))
        except OSError as exc:
            if exc.errno == errno.ENOENT and command != system_call.MAP_UPDATE:
                return False
            raise
        return True

    def _next_key(self, key: bytes | None) -> bytes | None:
        following = ctypes.create_string_buffer(self.key_bytes)
        before = ctypes.create_string_buffer(key or b"", self.key_bytes)
        at = ctypes.addressof(before) if key is not None else 0
        try:
            system_call.bpf(system_call.MAP_NEXT_KEY, struct.pack("<IxxxxQQ", self.fd, at, ctypes.addressof(following)))
        except OSError as exc:
            if exc.errno == errno.ENOENT:
                return None
            raise
        return following.raw

    def _batches(self, command: int) -> Iterator[tuple[bytes, bytes]]:
        """Entries in batches.

        Raises:
            _NotInBatches: nothing was given; this kernel or kind of map has none.
        """
        n = max(16, _BATCH_BYTES // (self.key_bytes + self.value_bytes))
        n = min(n, self.max_entries)
        # Where the next batch begins: opaque, of the size of a key, at least 4.
        place = ctypes.create_string_buffer(max(8, self.key_bytes))
        at_start, is_last = True, False
        while not is_last:
            keys = ctypes.create_string_buffer(n * self.key_bytes)
            values = ctypes.create_string_buffer(n * self.value_bytes)
            attributes = bytearray(
                _BATCH.pack(
                    0 if at_start else ctypes.addressof(place),
                    *(ctypes.addressof(buffer) for buffer in (place, keys, values)),
                    *(n, self.fd, 0, 0),
                )
            )
            try:
                system_call.bpf(command, attributes)
            except OSError as exc:
                if exc.errno == errno.ENOSPC and n < self.max_entries:
                    # One bucket of the hash holds more than we had room for; nothing was taken of it.
                    n = min(2 * n, self.max_entries)
                    continue
                if at_start and exc.errno in _NO_BATCHES:
                    raise _NotInBatches from exc
                if exc.errno != errno.ENOENT:
                    raise
                is_last = True
            at_start = False
            n_given = _BATCH.unpack(attributes)[4]
            yield from self._entries(keys.raw, values.raw, n_given)

    def _entries(self, keys: bytes, values: bytes, n: int) -> Iterator[tuple[bytes, bytes]]:
        key_bytes, value_bytes = self.key_bytes, self.value_bytes
        for i in range(n):
            yield keys[i * key_bytes : (i + 1) * key_bytes], values[i * value_bytes : (i + 1) * value_bytes]


class _NotInBatches(Exception):
    """Read it key by key."""


@cache
def n_possible_cpus() -> int:
    """How many CPUs may ever be there: parts of a per-CPU value. ``0-1`` or ``0,2-5`` (cputopology.rst)."""
    try:
        text = Path("/sys/devices/system/cpu/possible").read_text()
    except OSError:
        return os.cpu_count() or 1
    last = re.split(r"[,-]", text.strip())[-1]
    return int(last) + 1
