"""Which allocators a process is found to have, from a /proc and files made for the test."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from gprof_lite.errors import TargetGone
from gprof_lite.probes.allocators import AllocatorMap, find_allocators
from tests.data.tiny_elf import CODE_OFFSET, TinyElf
from tests.unit.host.fake_proc import add_process, stat_text

PUSH = b"\x55" + b"\x90" * 31
MALLOC_FAMILY = {"malloc": PUSH, "calloc": PUSH, "free": PUSH}
LIBC = TinyElf(exported={**MALLOC_FAMILY, "mmap": PUSH, "__libc_start_main": PUSH, "gnu_get_libc_version": PUSH})
MUSL = TinyElf(exported={**MALLOC_FAMILY, "mmap": PUSH, "__libc_start_main": PUSH})
JEMALLOC = TinyElf(exported={**MALLOC_FAMILY, "mallctl": PUSH, "_Znwm": PUSH, "_ZdlPv": b"\xe9\xbb\xff\xff\xff"})
LOADER = TinyElf(exported={"__tls_get_addr": PUSH})
PLAIN = TinyElf(exported={"zlib_version": PUSH})
PROGRAM = TinyElf(imported=("malloc", "free"), interpreter=True)


@dataclass
class FakeTarget:
    """A process 7 whose files are mapped one after the other, 0x10000 apart, code at 0x1000 of each."""

    directory: Path
    lines: list[str] = field(default_factory=list)

    @property
    def proc(self) -> Path:
        return self.directory / "proc"

    def start(self, *files: tuple[str, TinyElf | bytes]) -> FakeTarget:
        process = add_process(self.proc, 7, exe=files[0][0])
        (process / "map_files").mkdir()
        for name, content in files:
            self.map(name, content)
        return self

    def map(self, name: str, content: TinyElf | bytes, *, deleted: bool = False) -> int:
        """Map a file's code; returns where it begins."""
        number = len(self.lines) + 1
        path = self.directory / f"file{number}"
        path.write_bytes(content.build() if isinstance(content, TinyElf) else content)
        start = 0x400000 + 0x10000 * number
        (self.proc / "7" / "map_files" / f"{start:x}-{start + 0x1000:x}").symlink_to(path)
        suffix = " (deleted)" if deleted else ""
        inode = path.stat().st_ino
        self.lines.append(f"{start:x}-{start + 0x1000:x} r-xp {CODE_OFFSET:08x} fe:01 {inode}    {name}{suffix}")
        self.write("")
        return start

    def write(self, more: str) -> None:
        data = "7f0000000000-7f0000001000 rw-p 00000000 00:00 0\n"
        (self.proc / "7" / "maps").write_text(data + "\n".join(self.lines) + "\n" + more)

    def find(self, previous: AllocatorMap | None = None) -> AllocatorMap:
        return find_allocators(7, previous=previous, proc=self.proc)


@pytest.fixture
def target(tmp_path: Path) -> FakeTarget:
    return FakeTarget(tmp_path)


@pytest.mark.parametrize(
    ("files", "allocators"),
    [
        pytest.param([("/bin/a", PROGRAM), ("/lib/libc.so.6", LIBC)], ["glibc"], id="glibc"),
        pytest.param([("/bin/a", PROGRAM), ("/lib/ld-musl-x86_64.so.1", MUSL)], ["musl"], id="musl"),
        pytest.param(
            [("/bin/a", PROGRAM), ("/lib/libc.so.6", LIBC), ("/lib/x.so", JEMALLOC)],
            ["jemalloc", "glibc"],
            id="preloaded, whatever it is called",
        ),
        pytest.param(
            [("/bin/a", TinyElf(exported=MALLOC_FAMILY, interpreter=True)), ("/lib/libc.so.6", LIBC)],
            ["a", "glibc"],
            id="the program's own, exported",
        ),
        pytest.param(
            [("/bin/a", TinyElf(local={**MALLOC_FAMILY, "_int_malloc": PUSH, "mmap": PUSH}))],
            ["glibc"],
            id="static glibc",
        ),
        pytest.param([("/bin/a", TinyElf(local={**MALLOC_FAMILY, "__init_libc": PUSH}))], ["musl"], id="static musl"),
        pytest.param(
            [
                (
                    "/bin/a",
                    TinyElf(
                        local={"_rjem_malloc": PUSH, "_rjem_sdallocx": PUSH, "_rjem_mallctl": PUSH}, interpreter=True
                    ),
                ),
                ("/lib/libc.so.6", LIBC),
            ],
            ["jemalloc", "glibc"],
            id="jemalloc inside a Rust program",
        ),
    ],
)
def test_the_allocators_of_a_process_by_their_symbols(
    target: FakeTarget, files: list[tuple[str, TinyElf]], allocators: list[str]
) -> None:
    # WHEN
    found = target.start(*files).find()

    # THEN the one that serves the process comes first
    assert [module.name for module in found.modules] == allocators
    assert found.allocator == allocators[0]
    assert found.why_none == ""


@pytest.mark.parametrize(
    ("program", "words"),
    [
        pytest.param(TinyElf(exported={"x": PUSH}, interpreter=True), "neither a nor its libraries", id="no libc"),
        pytest.param(TinyElf(go=True), "Go program", id="go"),
        pytest.param(TinyElf(exported={"x": PUSH}), "statically linked and stripped", id="static, stripped"),
        pytest.param(TinyElf(local={"_start": PUSH}), "no allocation functions", id="static, only assembly"),
        pytest.param(TinyElf(local={"malloc": PUSH}), "no allocation functions", id="a lone malloc is no allocator"),
        pytest.param(b"#!", "cannot be read: /bin/a: is too short", id="no ELF file"),
    ],
)
def test_no_allocator_is_said_in_words(target: FakeTarget, program: TinyElf | bytes, words: str) -> None:
    found = target.start(("/bin/a", program)).find()

    assert found.modules == ()
    assert words in found.why_none


def test_offsets_are_those_of_the_file_and_code_is_where_it_is_mapped(target: FakeTarget) -> None:
    # GIVEN
    found = target.start(("/bin/a", PROGRAM), ("/lib/libc.so.6", LIBC)).find()

    # THEN
    (module,) = found.modules
    calloc = module.functions["calloc"]
    assert (calloc.entry_file_offset, calloc.function_bytes) == (CODE_OFFSET + 64, 32)
    assert module.text == ((0x420000, 0x421000),)
    assert module.bodies[1] == (0x420000 + 64, 0x420000 + 96)
    assert Path(module.openable).read_bytes() == LIBC.build()


def test_what_maps_memory_for_itself_is_allocators_libc_and_loader(target: FakeTarget) -> None:
    # GIVEN
    files = [
        ("/bin/a", PROGRAM),
        ("/l/libc.so.6", LIBC),
        ("/l/libz.so", PLAIN),
        ("/l/j.so", JEMALLOC),
        ("/l/ld.so", LOADER),
    ]

    # WHEN
    found = target.start(*files).find()

    # THEN neither the program nor libz
    assert found.own_text == ((0x420000, 0x421000), (0x440000, 0x441000), (0x450000, 0x451000))


def test_of_a_static_program_only_the_allocators_own_functions_map_for_themselves(target: FakeTarget) -> None:
    # GIVEN
    program = TinyElf(local={**MALLOC_FAMILY, "_int_malloc": PUSH, "sysmalloc": PUSH, "main": PUSH})

    # WHEN
    found = target.start(("/bin/a", program)).find()

    # THEN
    offsets = program.offsets()
    start = 0x410000 - CODE_OFFSET
    assert found.own_text == tuple(
        (start + offsets[name], start + offsets[name] + 32) for name in ("_int_malloc", "sysmalloc")
    )


def test_aliases_and_mere_jumps_are_probed_once(target: FakeTarget) -> None:
    # GIVEN an operator delete that jumps to a function that is probed
    found = target.start(("/bin/a", PROGRAM), ("/lib/x.so", JEMALLOC)).find()

    # THEN
    assert set(found.modules[0].functions) == {"malloc", "calloc", "free", "_Znwm"}


def test_new_through_malloc_is_not_probed(target: FakeTarget) -> None:
    # GIVEN a glibc program with the C++ library linked in
    program = TinyElf(local={**MALLOC_FAMILY, "_int_malloc": PUSH, "_Znwm": PUSH})

    # THEN
    assert "_Znwm" not in target.start(("/bin/a", program)).find().modules[0].functions


def test_nothing_is_read_again_while_the_code_is_the_same(target: FakeTarget) -> None:
    # GIVEN
    first = target.start(("/bin/a", PROGRAM), ("/lib/libc.so.6", LIBC)).find()

    # WHEN the heap grows
    target.write("7f1000000000-7f2000000000 rw-p 00000000 00:00 0\n")

    # THEN
    assert target.find(first) is first


def test_a_library_opened_later_is_found_and_the_others_are_not_read_again(target: FakeTarget) -> None:
    # GIVEN
    first = target.start(("/bin/a", PROGRAM), ("/lib/libc.so.6", LIBC)).find()
    (target.directory / "file2").write_bytes(b"changed")

    # WHEN
    target.map("/lib/plugin.so", JEMALLOC)
    second = target.find(first)

    # THEN
    assert [module.name for module in second.modules] == ["jemalloc", "glibc"]


def test_a_deleted_file_is_read_through_its_mapping(target: FakeTarget) -> None:
    # GIVEN
    target.start(("/bin/a", PROGRAM))
    target.map("/lib/libc.so.6", LIBC, deleted=True)

    # THEN
    assert target.find().modules[0].path == "/lib/libc.so.6"


def test_an_unreadable_file_costs_only_itself(target: FakeTarget) -> None:
    # GIVEN
    found = target.start(("/bin/a", PROGRAM), ("/lib/b.so", b"\x7fELF" + bytes(80)), ("/lib/libc.so.6", LIBC)).find()

    # THEN
    assert found.allocator == "glibc"
    assert len(found.problems) == 1
    assert "/lib/b.so" in found.problems[0]


def test_generated_code_in_a_file_is_no_problem(target: FakeTarget) -> None:
    # GIVEN
    found = target.start(("/bin/a", PROGRAM), ("/memfd:doublemapper", bytes(4096)), ("/lib/libc.so.6", LIBC)).find()

    # THEN
    assert found.problems == ()


def test_a_file_that_is_gone_is_looked_for_by_path_and_inode(target: FakeTarget) -> None:
    # GIVEN no map_files entry, and another file under its name
    target.start(("/bin/a", PROGRAM), ("/lib/libc.so.6", LIBC))
    (target.proc / "7/map_files/420000-421000").unlink()
    root = target.proc / "7/root/lib"
    root.mkdir(parents=True)
    (root / "libc.so.6").write_bytes(LIBC.build())

    # THEN
    assert target.find().problems == ("/lib/libc.so.6: is another file than the one that is mapped",)


def test_five_thousand_mappings_are_no_trouble(target: FakeTarget) -> None:
    # GIVEN
    target.start(("/bin/a", PROGRAM), ("/lib/libc.so.6", LIBC))
    lines = (
        f"{at:x}-{at + 0x1000:x} rw-p 00000000 00:00 0"
        for at in range(0x600000000000, 0x600000000000 + 5000 * 0x2000, 0x2000)
    )
    target.write("\n".join(lines) + "\n")

    # THEN
    found = target.find()
    assert found.allocator == "glibc"
    assert len(found.executable) == 2


def test_a_process_that_is_another_one_now_is_gone(target: FakeTarget) -> None:
    # GIVEN
    first = target.start(("/bin/a", PROGRAM)).find()

    # WHEN its pid is given to another
    (target.proc / "7" / "stat").write_text(stat_text(7, start=2000))

    # THEN
    with pytest.raises(TargetGone):
        target.find(first)


def test_a_process_that_never_was_is_gone(tmp_path: Path) -> None:
    with pytest.raises(TargetGone):
        find_allocators(7, proc=tmp_path)


def test_a_process_without_code_has_no_allocator(target: FakeTarget) -> None:
    # GIVEN a kernel thread: no executable, empty maps
    add_process(target.proc, 7)

    # THEN
    found = target.find()
    assert (found.modules, found.allocator) == ((), "")
    assert "no code of its own" in found.why_none
