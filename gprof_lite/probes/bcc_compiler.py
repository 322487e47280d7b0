"""Compiles a program with bcc, on a host whose kernel describes no types: its headers do.

``python -m gprof_lite.probes.bcc_compiler '{"name": "oom", ...}'`` prints a Compilation as JSON. Run as a child,
because bcc and the compiler inside it take 60 MB to import and 170 MB to compile, and keep it.

bcc is used as a compiler only. Its way to write map accesses (``map.lookup(&key)``) is a rewriting of the main file's
text, which knows neither macros nor included files. So our sources name a map by a number that we define
(``MAP_NUMBER_name``), which goes through the compiler as the descriptor of a map would; ``bcc_object`` makes the maps
and puts their descriptors in the numbers' places.

Source: bcc 0.26 to 0.35, ``src/cc/frontends/clang`` and ``src/python/bcc/__init__.py``.
"""

from __future__ import annotations

import base64
import ctypes
import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

# In the place of a map's descriptor; far above any real one.
MAP_NUMBER_BASE: Final = 0x6D617000

# compat.h: each of these words begins a line.
_MAPS: Final = re.compile(r"^MAP_\w+\((\w+)", re.MULTILINE)
_TUNABLES: Final = re.compile(r"^TUNABLE\([^,]+,\s*(\w+)", re.MULTILINE)
_DISTRIBUTION_PACKAGES: Final = "/usr/lib/python3/dist-packages"


@dataclass(frozen=True, slots=True)
class CompileRequest:
    """What to compile: ``directory/name.bpf.c``, with other values than its own for tunables and maps' sizes.

    Attributes:
        headers_match: the kernel's headers are those of the running kernel, so its structures may be read by them.
    """

    name: str
    directory: str
    tunables: Mapping[str, int] = field(default_factory=dict)
    max_entries: Mapping[str, int] = field(default_factory=dict)
    headers_match: bool = True


@dataclass(frozen=True, slots=True)
class CompiledMap:
    """A map as the source declares it. ``map_type`` as in enum bpf_map_type."""

    name: str
    map_type: int
    key_bytes: int
    value_bytes: int
    max_entries: int
    flags: int


@dataclass(frozen=True, slots=True)
class Compilation:
    """What came of it: programs' instructions (base64) by name, maps in the order of their numbers; or why nothing."""

    programs: Mapping[str, str]
    maps: tuple[CompiledMap, ...]
    error: str = ""

    @classmethod
    def from_json(cls, text: str) -> Compilation:
        """Read what ``main`` printed.

        Raises:
            ValueError: it is no such thing.
        """
        told = json.loads(text)
        maps = tuple(CompiledMap(**each) for each in told["maps"])
        return cls(told["programs"], maps, told["error"])


def declared_maps(source: str) -> list[str]:
    """Names of the maps of a source, in order: their places are their numbers."""
    return _MAPS.findall(source)


def declared_tunables(source: str) -> list[str]:
    """Names of the tunables of a source."""
    return _TUNABLES.findall(source)


def definitions(source: str, request: CompileRequest) -> str:
    """The lines that must come before a source: see compat.h, FOR_BCC."""
    lines = ["#define FOR_BCC 1", f"#define HEADERS_MATCH {int(request.headers_match)}"]
    for number, name in enumerate(declared_maps(source), MAP_NUMBER_BASE):
        lines.append(f"#define MAP_NUMBER_{name} {number}")
        lines.append(f"#define MAP_ENTRIES_{name}(n) ({request.max_entries.get(name, 'n')})")
    for name in declared_tunables(source):
        lines.append(f"#define TUNABLE_{name}(value) ({request.tunables.get(name, 'value')})")
    # Errors count lines as the file does.
    return "\n".join([*lines, "#line 1", ""])


def compile_program(request: CompileRequest) -> Compilation:
    """Compile here and now, 4 s and 170 MB. What goes wrong is in ``error``, in the compiler's words."""
    directory = Path(request.directory)
    source = (directory / f"{request.name}.bpf.c").read_text()
    try:
        bcc = _import_bcc()
    except ImportError as exc:
        return Compilation({}, (), f"bcc cannot be imported: {exc}")
    with _errors_of_this_process() as said:
        try:
            module = bcc.BPF(
                text=(definitions(source, request) + source).encode(),
                # Debian's headers belong to another compiler than the one in bcc: its warnings about them say nothing.
                cflags=[f"-I{directory}", "-Wno-everything", "-Werror=implicit-function-declaration"],
            )
        except Exception as exc:  # noqa: BLE001  bcc raises nothing narrower; told to the caller, in full
            return Compilation({}, (), "".join(said()) or str(exc))
    try:
        return _take_out(bcc.lib, module, declared_maps(source))
    finally:
        module.cleanup()


def _import_bcc() -> Any:
    """bcc of the distribution; there is none on PyPI."""
    if _DISTRIBUTION_PACKAGES not in sys.path:
        sys.path.append(_DISTRIBUTION_PACKAGES)
    import bcc

    return bcc


def _take_out(lib: Any, module: Any, names: list[str]) -> Compilation:
    lib.bpf_function_name.restype = ctypes.c_char_p
    functions = [lib.bpf_function_name(module.module, i) for i in range(lib.bpf_num_functions(module.module))]
    programs = {name.decode(): base64.b64encode(module.dump_func(name)).decode() for name in functions}
    return Compilation(programs, tuple(_map(lib, module.module, name) for name in names))


def _map(lib: Any, module: Any, name: str) -> CompiledMap:
    number = lib.bpf_table_id(module, name.encode())
    return CompiledMap(
        name=name,
        map_type=lib.bpf_table_type_id(module, number),
        key_bytes=lib.bpf_table_key_size_id(module, number),
        value_bytes=lib.bpf_table_leaf_size_id(module, number),
        max_entries=lib.bpf_table_max_entries_id(module, number),
        flags=lib.bpf_table_flags_id(module, number),
    )


@contextmanager
def _errors_of_this_process() -> Iterator[Any]:
    """The compiler writes to descriptor 2, past Python; give a function that reads what it wrote."""
    with tempfile.TemporaryFile() as file:
        kept = os.dup(2)
        os.dup2(file.fileno(), 2)

        def said() -> Iterator[str]:
            file.seek(0)
            yield file.read().decode(errors="replace")

        try:
            yield said
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def main(argv: list[str]) -> int:
    """Compile what the first argument says and print what came of it, be it an error of the compiler."""
    compilation = compile_program(CompileRequest(**json.loads(argv[1])))
    sys.stdout.write(json.dumps(asdict(compilation)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
