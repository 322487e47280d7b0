"""Symbols as people know them: C++ by the ``cpp_demangle`` library, Rust by ``rust_name``, anything else as it is."""

from __future__ import annotations

from typing import Final

import cpp_demangle

from gprof_lite.symbols.rust_name import demangle_rust

# A frame keeps 4,096 characters; the longest symbols seen here have 12,000. Beyond that it is not worth the time.
_MAX_SYMBOL_LENGTH: Final = 32_768


def demangle(symbol: str) -> str:
    """The name to show. Never raises and never empties a name."""
    if not symbol.startswith(("_Z", "_R", "___Z")) or len(symbol) > _MAX_SYMBOL_LENGTH:
        return symbol
    rust = demangle_rust(symbol)
    if rust is not None:
        return rust
    try:
        return cpp_demangle.demangle(symbol) or symbol
    except ValueError:
        return symbol
