"""Settings of the symbolizer."""

from __future__ import annotations

from dataclasses import dataclass

from gprof_lite.config import byte_size, duration_s, setting, yes_or_no


@dataclass(frozen=True, slots=True)
class SymbolOptions:
    """How far the symbolizer goes for a name.

    Attributes:
        symbol_cache_bytes: memory for open symbol files and for names already found, together. Beyond it what was
            not used for the longest time goes first, and is read again when it is needed.
        symbol_disk_bytes: prepared symbol files kept in the work directory for as long as the agent runs.
        symbol_file_max_bytes: a file with symbols or debug information that is larger is not read.
        symbol_wait_s: how long one stack may wait for symbols to be prepared.
        debuginfod: ask the servers that the variable DEBUGINFOD_URLS names for debug information that is not on this
            host. Nothing is asked where that variable is not set.
        debuginfod_wait_s: how long one such question may take.
    """

    symbol_cache_bytes: int = setting(
        12 << 20, read=byte_size(1 << 20, 1 << 32), help="memory for symbols that are in use", metavar="SIZE"
    )
    symbol_disk_bytes: int = setting(
        256 << 20, read=byte_size(1 << 20, 1 << 40), help="prepared symbols kept in the work directory", metavar="SIZE"
    )
    symbol_file_max_bytes: int = setting(
        1 << 30, read=byte_size(1 << 20, 1 << 40), help="largest file that symbols are read from", metavar="SIZE"
    )
    symbol_wait_s: float = setting(
        20.0, read=duration_s(0.1, 600.0), help="how long a stack may wait for symbols", metavar="TIME"
    )
    debuginfod: bool = setting(
        True, read=yes_or_no(), help="fetch debug information from the servers in DEBUGINFOD_URLS, where that is set"
    )
    debuginfod_wait_s: float = setting(
        5.0, read=duration_s(0.1, 600.0), help="how long one such fetch may take", metavar="TIME"
    )
