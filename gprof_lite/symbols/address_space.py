"""What the addresses of one process mean: its executable mappings and their files, remembered beyond its end."""

from __future__ import annotations

import zlib
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from gprof_lite.clock import Clock
from gprof_lite.errors import FormatError, TargetGone
from gprof_lite.host.identity import ProcessIdentity
from gprof_lite.host.maps import Mapping, parse_maps, read_maps_text
from gprof_lite.host.processes import TICKS_PER_S, read_uptime_s
from gprof_lite.symbols.module import Module
from gprof_lite.symbols.modules import Modules
from gprof_lite.symbols.perf_map import PerfMap, read_perf_map

# How often an address in no mapping may have the maps read again (something was opened by dlopen), and an address
# without a name the perf-map.
REREAD_AFTER_S: Final = 1.0
PERF_MAP_AGAIN_AFTER_S: Final = 5.0

# A process of 5,000 mappings has some 100 with code; a JIT that maps each function apart has more than anybody needs.
_MAX_MAPPINGS: Final = 8192


@dataclass(slots=True)
class AddressSpace:
    """One process's. ``modules`` has what was opened so far: None for a file that is no ELF file of ours.

    ``is_final``: it is no process's any more, so nothing is read again.
    """

    identity: ProcessIdentity
    proc: Path
    checksum: int = 0
    mappings: tuple[Mapping, ...] = ()
    starts: list[int] = field(default_factory=list)
    modules: dict[tuple[str, int], Module | None] = field(default_factory=dict)
    read_s: float = float("-inf")
    perf_map: PerfMap | None = None
    perf_map_read_s: float = float("-inf")
    n_refused_perf_maps: int = 0
    is_final: bool = False

    def read(self, clock: Clock, modules: Modules) -> None:
        """Read the maps if it still is this process, and open the files that are new in them.

        Raises:
            TargetGone: it is not; what was known stays.
            PermissionError: its maps are not for us to see.
        """
        pid = self.identity.pid
        self.read_s = clock.monotonic_s()
        text = read_maps_text(pid, executable_only=True, proc=self.proc)
        # Only after the maps were read is it certain whose they are; a zombie's are empty.
        if not self.identity.is_alive(self.proc):
            raise TargetGone(pid)
        checksum = zlib.crc32(text)
        if checksum == self.checksum and self.mappings:
            return
        self.checksum = checksum
        self._take(parse_maps(text))
        self.modules = {
            mapping.file_key: modules.of_mapping(self.identity, mapping) for mapping in self.mappings if mapping.is_file
        }

    def close_with(self, mappings: Sequence[Mapping], modules: Modules) -> None:
        """Its process has ended, or became another program; this is what it had mapped then, by ascending address."""
        self.is_final = True
        self._take(mappings)
        self.modules = {mapping.file_key: modules.of_ended(mapping) for mapping in self.mappings if mapping.is_file}

    def _take(self, mappings: Sequence[Mapping]) -> None:
        self.mappings = tuple(mappings[:_MAX_MAPPINGS])
        self.starts = [mapping.start for mapping in self.mappings]

    def mapping_of(self, address: int) -> Mapping | None:
        """The executable mapping that holds an address."""
        index = bisect_right(self.starts, address) - 1
        if index < 0 or address >= self.mappings[index].end:
            return None
        return self.mappings[index]

    def may_have_changed(self, clock: Clock) -> bool:
        """Whether it is worth reading the maps again for an address that is in none."""
        return not self.is_final and clock.monotonic_s() - self.read_s >= REREAD_AFTER_S

    def perf_map_name(self, address: int, clock: Clock) -> str | None:
        """What the runtime itself calls the code it made at an address."""
        now_s = clock.monotonic_s()
        found = self.perf_map.table.find(address) if self.perf_map is not None else None
        if found is None and now_s - self.perf_map_read_s >= PERF_MAP_AGAIN_AFTER_S:
            self.perf_map_read_s = now_s
            self._read_perf_map(clock)
            found = self.perf_map.table.find(address) if self.perf_map is not None else None
        return found.name if found is not None else None

    def _read_perf_map(self, clock: Clock) -> None:
        if self.is_final or not self.identity.is_alive(self.proc):
            return
        try:
            started_s = clock.utc_ns() / 1e9 - read_uptime_s(self.proc) + self.identity.start_time_ticks / TICKS_PER_S
            found = read_perf_map(self.identity.pid, self.perf_map, started_utc_s=started_s, proc=self.proc)
            self.perf_map = found or self.perf_map
        except (FormatError, OSError):
            self.n_refused_perf_maps += 1
        except TargetGone:
            pass
