from __future__ import annotations

import os
import struct
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gprof_lite.errors import TargetGone
from gprof_lite.host.runtime import RuntimeFinder, runtime_of
from tests.unit.host.fake_proc import add_process


def elf(
    *, names: bytes = b"\0", sections: dict[bytes, bytes] | None = None, data: bytes = b"", headers: bool = True
) -> bytes:
    """A 64-bit ELF file with a ``.dynstr``, other sections, and one writable segment that begins with ``data``."""
    contents = {b"": b"", b".dynstr": names, **(sections or {}), b".shstrtab": b""}
    name_table = b"\0".join(contents) + b"\0"
    contents[b".shstrtab"] = name_table
    segment_at = 64 + 56
    body = data
    places = []
    for content in contents.values():
        places.append((segment_at + len(body), len(content)))
        body += content
    name_at = 0
    table = b""
    for name, (at, size) in zip(contents, places, strict=True):
        table += struct.pack("<IIQQQQIIQQ", name_at, 3, 0, 0, at, size, 0, 0, 1, 0)
        name_at += len(name) + 1
    table_at = segment_at + len(body)
    n, index = (len(places), len(places) - 1) if headers else (0, 0)
    head = b"\x7fELF\x02\x01\x01" + b"\0" * 9
    head += struct.pack("<HHIQQQIHHHHHH", 3, 62, 1, 0, 64, table_at, 0, 64, 56, 1, 64, n, index)
    segment = struct.pack("<IIQQQQQQ", 1, 6, segment_at, 0, 0, len(data), len(data), 1)
    return head + segment + body + table


def add_program(proc: Path, program: bytes, maps: str = "", name: str = "program") -> None:
    file = proc / name
    file.write_bytes(program)
    add_process(proc, 7, exe=str(file), maps=maps)


@pytest.mark.parametrize(
    ("program", "runtime"),
    [
        pytest.param(elf(), "native", id="nothing special"),
        pytest.param(elf(names=b"\0malloc\0_PyEval_EvalFrameDefault\0"), "python", id="CPython"),
        pytest.param(elf(names=b"\0PyEval_EvalFrameEx\0"), "python", id="old CPython"),
        pytest.param(elf(names=b"\0napi_x\0node_module_register\0"), "node", id="node"),
        pytest.param(elf(names=b"\0ruby_run_node\0"), "ruby", id="ruby"),
        pytest.param(elf(names=b"\0php_execute_script\0"), "php", id="php"),
        pytest.param(elf(names=b"\0perl_run\0"), "perl", id="perl"),
        pytest.param(elf(names=b"\0my_node_module_register_too\0"), "native", id="only part of a name"),
        pytest.param(elf(sections={b".go.buildinfo": b"x"}), "go", id="Go"),
        pytest.param(elf(data=b"\0" * 160 + b"\xff Go buildinf:\x08\0", headers=False), "go", id="Go without headers"),
        pytest.param(elf(names=b"\0node_module_register\0", headers=False), "native", id="no headers"),
        pytest.param(b"\0" + b"x" * (3 << 20), "native", id="no ELF file"),
        pytest.param(b"", "native", id="empty"),
        pytest.param(
            elf(names=b"\0" + b"x" * (2 << 20) + b"\0node_module_register\0"), "node", id="far into the names"
        ),
    ],
)
def test_the_program_tells(tmp_path: Path, program: bytes, runtime: str) -> None:
    add_program(tmp_path, program)

    assert runtime_of(7, tmp_path) == runtime


@pytest.mark.parametrize("distance", range(-30, 31, 6))
def test_a_name_across_two_pieces_is_found(tmp_path: Path, distance: int) -> None:
    add_program(tmp_path, elf(names=b"\0" + b"x" * ((1 << 20) + distance) + b"\0node_module_register\0"))

    assert runtime_of(7, tmp_path) == "node"


@pytest.mark.parametrize(
    ("path", "runtime"),
    [
        pytest.param("/usr/lib/jvm/java-17/lib/server/libjvm.so", "java", id="java"),
        pytest.param("/opt/jdk/lib/server/libjvm.so (deleted)", "java", id="java, upgraded meanwhile"),
        pytest.param("/usr/share/dotnet/shared/Microsoft.NETCore.App/8.0.1/libcoreclr.so", "dotnet", id="dotnet"),
        pytest.param("/usr/lib/x86_64-linux-gnu/libpython3.11.so.1.0", "python", id="python"),
        pytest.param("/usr/lib/x86_64-linux-gnu/libruby-3.1.so.3.1.2", "ruby", id="ruby"),
        pytest.param("/usr/lib/x86_64-linux-gnu/libnode.so.108", "node", id="node"),
        pytest.param("/usr/lib/apache2/modules/libphp8.2.so", "php", id="php"),
        pytest.param("/usr/lib/x86_64-linux-gnu/libperl.so.5.36.0", "perl", id="perl"),
        pytest.param("/usr/lib/x86_64-linux-gnu/libc.so.6", "native", id="C"),
        pytest.param("/home/ann/libjvm.so.txt", "native", id="almost"),
    ],
)
def test_mapped_libraries_tell(tmp_path: Path, path: str, runtime: str) -> None:
    add_program(tmp_path, elf(), maps=f"7f1c2a000000-7f1c2a200000 r-xp 00000000 08:01 1234    {path}\n")

    assert runtime_of(7, tmp_path) == runtime


def test_of_two_the_one_that_embeds_the_other_counts(tmp_path: Path) -> None:
    lines = [
        f"7f1c2a000000-7f1c2a200000 r-xp 00000000 08:01 1    /x/{name}\n" for name in ("libpython3.so", "libjvm.so")
    ]
    add_program(tmp_path, elf(), maps="".join(lines))

    assert runtime_of(7, tmp_path) == "java"


@pytest.mark.parametrize("name", ["node", "java", "python3"])
def test_the_name_of_the_program_does_not_count(tmp_path: Path, name: str) -> None:
    add_program(tmp_path, elf(), name=name)

    assert runtime_of(7, tmp_path) == "native"


def test_a_kernel_thread_is_native(tmp_path: Path) -> None:
    add_process(tmp_path, 7)

    assert runtime_of(7, tmp_path) == "native"


def test_an_ended_process_is_gone(tmp_path: Path) -> None:
    with pytest.raises(TargetGone):
        runtime_of(7, tmp_path)


def test_a_program_is_read_once(tmp_path: Path) -> None:
    # GIVEN two processes of one program
    add_program(tmp_path, elf(names=b"\0node_module_register\0"))
    add_process(tmp_path, 8, exe=str(tmp_path / "program"))
    finder = RuntimeFinder(tmp_path)
    finder.runtime_of(7)
    status = (tmp_path / "program").stat()
    # WHEN its content changes in secret
    content = (tmp_path / "program").read_bytes().replace(b"node_module_register", b"xxxxxxxxxxxxxxxxxxxx")
    (tmp_path / "program").write_bytes(content)
    os.utime(tmp_path / "program", ns=(status.st_atime_ns, status.st_mtime_ns))

    assert finder.runtime_of(8) == "node"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100, deadline=None)
@given(st.integers(0, 400), st.binary(min_size=1, max_size=40))
def test_any_program_is_survived(tmp_path: Path, at: int, patch: bytes) -> None:
    program = bytearray(elf(names=b"\0malloc\0"))
    program[at : at + len(patch)] = patch
    (tmp_path / "program").write_bytes(program)
    if not (tmp_path / "7").exists():
        add_process(tmp_path, 7, exe=str(tmp_path / "program"))

    assert runtime_of(7, tmp_path) in ("native", "go")


def test_we_are_python() -> None:
    assert runtime_of(os.getpid()) == "python", sys.version
