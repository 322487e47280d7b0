"""Programs, maps and rings are the same through libbpf and bcc, in what they do and in what they refuse."""

from __future__ import annotations

import errno
import os
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gprof_lite.errors import LoadRejected, ProbeError
from gprof_lite.probes import bcc_object, system_call
from gprof_lite.probes.bcc_compiler import Compilation, CompileRequest, compile_program
from gprof_lite.probes.kernel_map import MapFull
from gprof_lite.probes.libbpf_object import LibbpfObject
from gprof_lite.probes.loader import OBJECTS, LoaderChoice, open_object
from gprof_lite.probes.object import BpfMap, BpfObject
from gprof_lite.stop import StopToken
from gprof_lite.supervise.warden_client import Warden

PAGE = struct.Struct("<QQ")
# struct btf_ext_header of libbpf: magic, version, flags, its own size, then offset and size of three parts, of which
# the last are the accesses that are to be relocated.
BTF_EXT = struct.Struct("<HBBI6I")
BTF_EXT_BEGINS = struct.pack("<HBBI", 0xEB9F, 1, 0, BTF_EXT.size)


@pytest.fixture(scope="module")
def compile_once() -> Callable[[CompileRequest], Compilation]:
    """bcc, but the same request is compiled only once: that takes seconds."""
    known: dict[str, Compilation] = {}

    def compile_it(request: CompileRequest) -> Compilation:
        asked = repr(request)
        if asked not in known:
            known[asked] = compile_program(request)
        return known[asked]

    return compile_it


@pytest.fixture
def notebook(
    bpf_loader: LoaderChoice, test_programs: Path, compile_once: Callable[[CompileRequest], Compilation]
) -> Iterator[BpfObject]:
    if bpf_loader is LoaderChoice.BCC:
        with bcc_object.BccObject("notebook", test_programs, compile_once) as compiled:
            yield compiled
    else:
        with open_object("notebook", loader=bpf_loader, directory=test_programs) as opened:
            yield opened


def key(number: int) -> bytes:
    return struct.pack("<I", number)


def count(programs: BpfObject, which: int) -> int:
    return int.from_bytes(programs.map("counts").lookup_number(which), "little")


def test_tunables_have_their_defaults_and_take_other_values(notebook: BpfObject) -> None:
    # GIVEN a program that answers with a tunable, and others that use two
    notebook.configure("n_turns", 7)
    notebook.load()
    # WHEN it runs
    answer = notebook.run("ask_turns")
    seen: list[bytes] = []
    with notebook.ring("notes", seen.append) as ring:
        notebook.run("tell_notes")
        ring.poll()
    # THEN the one has the new value, the other its default
    assert answer == 7
    assert {struct.unpack("<QQQ", note)[1] for note in seen} == {1 << 40}


def test_a_hash_is_written_by_the_program_and_read_in_batches_and_by_key(notebook: BpfObject) -> None:
    notebook.load()
    for _ in range(300):
        notebook.run("write_pages")
    pages = notebook.map("pages")
    # WHEN it is read in all three ways
    batched = dict(pages.items())
    by_key = {each: pages.lookup(each) for each in pages.keys()}  # noqa: SIM118  a map, not a dict
    # THEN they agree with what was written
    assert batched == by_key == {key(i): PAGE.pack(i, i * i) for i in range(3000)}
    assert pages.lookup(key(3001)) is None
    assert pages.memory_bytes() > 0


def test_a_kernel_without_batches_is_read_by_key(notebook: BpfObject, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook.load()
    notebook.run("write_pages")
    real = system_call.bpf

    def without_batches(command: int, attributes: bytes | bytearray) -> int:
        if system_call.MAP_LOOKUP_BATCH <= command <= system_call.MAP_DELETE_BATCH:
            raise OSError(errno.EINVAL, "Invalid argument")
        return real(command, attributes)

    monkeypatch.setattr(system_call, "bpf", without_batches)
    assert len(dict(notebook.map("pages").items())) == 10
    notebook.map("pages").clear()
    assert dict(notebook.map("pages").items()) == {}


def test_entries_are_deleted_and_maps_cleared(notebook: BpfObject) -> None:
    notebook.load()
    notebook.run("write_pages")
    pages, counts = notebook.map("pages"), notebook.map("counts")
    counts.update(key(3), (5).to_bytes(8, "little"))
    assert pages.delete(key(1))
    assert not pages.delete(key(1))
    assert pages.delete_many([key(1), key(2), key(3)]) == 2
    pages.clear()
    counts.clear()
    assert list(pages.items()) == []
    assert count(notebook, 3) == 0


def test_a_full_map_is_an_error_for_us_and_a_count_for_the_program(notebook: BpfObject) -> None:
    # GIVEN a map with room for fewer than are written
    notebook.set_max_entries("pages", 16)
    notebook.load()
    for _ in range(10):
        notebook.run("write_pages")
    pages = notebook.map("pages")
    assert pages.max_entries == 16
    assert len(list(pages.items())) + count(notebook, 0) == 100
    # WHEN we write, too, THEN that is an error with words
    with pytest.raises(MapFull, match="full"):
        fill(pages)


def test_values_of_per_cpu_maps_have_a_part_for_each_cpu(notebook: BpfObject) -> None:
    notebook.load()
    for cpu in os.sched_getaffinity(0):
        notebook.map("counts").clear()
        run_on(cpu, lambda: notebook.run("write_pages"))
    sums = notebook.map("sums")
    parts = sums.per_cpu(sums.lookup_number(0))
    assert sum(int.from_bytes(part, "little") for part in parts) == 45 * len(os.sched_getaffinity(0))
    assert {len(part) for part in parts} == {8}
    hashed = notebook.map("parts")
    hashed.update(key(1), bytes(hashed.value_bytes))
    assert len(hashed.per_cpu(next(hashed.items())[1])) == len(parts)


def fill(pages: BpfMap) -> None:
    """A hash of the kernel may take a few more than it says: each CPU holds some free entries back."""
    for number in range(1000, 2000):
        pages.update(key(number), PAGE.pack(0, 0))


def run_on(cpu: int, act: Callable[[], object]) -> None:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        act()
    finally:
        os.sched_setaffinity(0, before)


def test_records_arrive_once_and_in_order_all_round_the_ring(notebook: BpfObject) -> None:
    # GIVEN a ring of one page, and far more records in all than fit at once; each fourth is thrown away by the program
    notebook.load()
    seen: list[int] = []
    with notebook.ring("notes", lambda note: seen.append(struct.unpack("<QQQ", note)[0])) as ring:
        for _ in range(100):
            notebook.run("tell_notes")
            assert ring.poll(1.0) == 8
        assert ring.poll(0.0) == 0
    assert seen == [number for number in range(1000) if number % 10 not in (3, 7)]
    assert count(notebook, 1) == 0


def test_a_full_ring_keeps_what_it_has_and_the_program_counts_the_rest(notebook: BpfObject) -> None:
    notebook.load()
    seen: list[int] = []
    with notebook.ring("notes", lambda note: seen.append(struct.unpack("<QQQ", note)[0])) as ring:
        for _ in range(50):
            notebook.run("tell_notes")
        ring.poll()
        n_first = len(seen)
        notebook.run("tell_notes")
        ring.poll()
    # 4096 bytes hold 127 records of 24 bytes with their headers; the rest was counted; afterwards there is room again.
    assert 90 <= n_first <= 128
    assert len(seen) > n_first
    assert count(notebook, 1) + count(notebook, 2) == 510
    assert seen == sorted(set(seen))


def test_a_callback_that_raises_loses_no_other_record(notebook: BpfObject) -> None:
    notebook.load()
    seen: list[bytes] = []

    def take(note: bytes) -> None:
        seen.append(note)
        if len(seen) == 3:
            raise KeyError("third")

    with notebook.ring("notes", take) as ring:
        notebook.run("tell_notes")
        with pytest.raises(KeyError):
            ring.poll()
        ring.poll()
    assert len(seen) == 8  # of ten, two thrown away by the program


def test_an_attached_program_runs_until_its_link_is_closed(notebook: BpfObject) -> None:
    notebook.load()
    link = notebook.attach("count_ends")
    subprocess.run(("true",), check=True, timeout=10)
    n_attached = count(notebook, 3)
    link.close()
    link.close()
    notebook.map("counts").clear()
    subprocess.run(("true",), check=True, timeout=10)
    assert n_attached >= 1
    assert count(notebook, 3) == 0


def test_a_skipped_program_is_not_loaded(notebook: BpfObject) -> None:
    notebook.skip("count_ends")
    notebook.load()
    with pytest.raises((ProbeError, ValueError), match="count_ends"):
        notebook.attach("count_ends")
    assert notebook.program_statistics("ask_turns").verified_instructions > 0


def test_names_that_do_not_exist_are_named(notebook: BpfObject) -> None:
    for act in (
        lambda: notebook.configure("nothing", 1),
        lambda: notebook.set_max_entries("nothing", 1),
        lambda: notebook.skip("nothing"),
        lambda: notebook.set_attach_type("nothing", 1),
    ):
        with pytest.raises(ValueError, match="nothing"):
            act()
    notebook.load()
    for act in (lambda: notebook.map("nothing"), lambda: notebook.program_fd("nothing")):
        with pytest.raises(ValueError, match="nothing"):
            act()


def test_what_belongs_before_loading_is_misuse_after_it(notebook: BpfObject) -> None:
    notebook.load()
    with pytest.raises(RuntimeError, match="loaded already"):
        notebook.configure("n_turns", 1)
    with pytest.raises(RuntimeError, match="loaded already"):
        notebook.load()


def test_a_refused_program_says_what_the_verifier_said(bpf_loader: LoaderChoice, test_programs: Path) -> None:
    with open_object("refused", loader=bpf_loader, directory=test_programs) as programs:
        with pytest.raises(LoadRejected, match="verifier refuses") as refused:
            programs.load()
        assert "map_value_or_null" in refused.value.verifier_log
        assert "invalid mem access" in str(refused.value)


def test_a_missing_object_says_how_it_is_made(bpf_loader: LoaderChoice, tmp_path: Path) -> None:
    with pytest.raises(ProbeError, match="cannot be read") as error:
        open_object("notebook", loader=bpf_loader, directory=tmp_path)
    assert "make bpf" in error.value.hint


@pytest.mark.parametrize(
    "image", [b"", b"\x7fELF", b"\x7fELF" + bytes(200), b"no object"], ids=["empty", "magic", "zeroes", "text"]
)
def test_a_broken_object_is_an_error_in_words(image: bytes, tmp_path: Path) -> None:
    (tmp_path / "broken.bpf.o").write_bytes(image)
    with pytest.raises(ProbeError, match="cannot be opened by libbpf"):
        LibbpfObject("broken", tmp_path / "broken.bpf.o")


def test_a_cut_object_never_crashes_the_agent(test_programs: Path, tmp_path: Path) -> None:
    # In a child: libbpf reads what we ship, and a broken file must not be found out by our own death.
    whole = (test_programs / "notebook.bpf.o").read_bytes()
    for n_bytes in range(64, len(whole), max(1, len(whole) // 12)):
        (tmp_path / f"cut{n_bytes}.bpf.o").write_bytes(whole[:n_bytes])
    child = """
import sys
from pathlib import Path
from gprof_lite.errors import ProbeError
from gprof_lite.probes.libbpf_object import LibbpfObject
for path in sorted(Path(sys.argv[1]).glob("cut*.o")):
    try:
        LibbpfObject("cut", path).close()
    except ProbeError:
        print("refused")
"""
    told = subprocess.run(
        (sys.executable, "-c", child, tmp_path), check=True, timeout=60, capture_output=True, text=True
    )
    assert told.stdout.count("refused") == len(list(tmp_path.glob("cut*.o")))
    assert told.stderr == ""


def test_bcc_says_what_it_cannot_compile(tmp_path: Path, test_programs: Path) -> None:
    for header in test_programs.glob("*.h"):
        (tmp_path / header.name).write_bytes(header.read_bytes())
    (tmp_path / "wrong.bpf.c").write_text('#include "compat.h"\n\nRAW_TRACEPOINT(x, y)\n{\n\treturn nobody;\n}\n')
    refused = pytest.raises(LoadRejected, match=r"main.c:5.*undeclared identifier 'nobody'")
    with open_object("wrong", loader=LoaderChoice.BCC, directory=tmp_path) as programs, refused:
        programs.load()


def test_bcc_compiles_in_a_child_of_the_warden(test_programs: Path) -> None:
    with (
        Warden() as warden,
        StopToken() as stop,
        open_object("notebook", loader=LoaderChoice.BCC, warden=warden, stop=stop, directory=test_programs) as programs,
    ):
        programs.configure("n_turns", 9)
        programs.load()
        assert programs.run("ask_turns") == 9


def test_without_headers_or_bcc_the_words_say_so(test_programs: Path) -> None:
    def compiling(error: str) -> Callable[[CompileRequest], Compilation]:
        return lambda _: Compilation({}, (), error)

    cases = {
        "bcc cannot be imported: No module named 'bcc'": "apt install python3-bpfcc",
        "Unable to find kernel headers. Try rebuilding kernel": f"linux-headers-{os.uname().release}",
    }
    for words, hint in cases.items():
        with bcc_object.BccObject("notebook", test_programs, compiling(words)) as programs:
            with pytest.raises(ProbeError) as error:
                programs.load()
            assert hint in error.value.hint


def test_bcc_leaves_nothing_when_a_later_program_is_refused(test_programs: Path) -> None:
    # GIVEN a compilation whose last program is no program at all; the maps and the first ones are made before it
    def spoilt(request: CompileRequest) -> Compilation:
        good = compile_program(request)
        return Compilation({**good.programs, "count_ends": "AAAAAAAAAAA="}, good.maps)

    with bcc_object.BccObject("notebook", test_programs, spoilt) as programs, pytest.raises(LoadRejected):
        programs.load()


@pytest.mark.parametrize(
    ("name", "relocated"), [("alloc", False), ("faults", False), ("calibrate", False), ("oom", True)]
)
def test_what_every_investigation_loads_does_not_make_libbpf_decode_the_kernels_types(
    name: str, relocated: bool
) -> None:
    """That would be 11 MB of the agent's memory, each time; ``oom`` is loaded once, at the start."""
    image = (OBJECTS / f"{name}.bpf.o").read_bytes()
    header = BTF_EXT.unpack_from(image, image.index(BTF_EXT_BEGINS))

    assert bool(header[-1]) == relocated
