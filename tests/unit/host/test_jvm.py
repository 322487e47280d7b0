from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from gprof_lite.errors import FormatError, TargetGone
from gprof_lite.formats.jvm_perf_data import parse_jvm_perf_data
from gprof_lite.host.jvm import JvmMemory, jvm_memory_of, read_jvm_memory
from tests.unit.host.fake_proc import add_process

DATA = Path(__file__).parents[2] / "data/jvm"
MIB = 1 << 20
MAPS = "7fbd525d6000-7fbd525de000 rw-s 00000000 fe:00 99     /tmp/hsperfdata_ann/1\n"


def recorded(name: str) -> JvmMemory:
    memory = jvm_memory_of(parse_jvm_perf_data((DATA / f"java17_{name}.perfdata").read_bytes()))
    assert memory is not None
    return memory


@pytest.mark.parametrize("name", ["g1", "parallel", "z"])
def test_what_the_program_held_is_in_the_old_generation(name: str) -> None:
    # G1 and ZGC give each block of 1 MiB two regions of 1 MiB, because its header makes it larger than one
    memory = recorded(name)

    assert 20 * MIB < memory.old_used_bytes < 45 * MIB
    assert memory.old_used_bytes <= memory.heap_used_bytes <= memory.heap_capacity_bytes
    assert memory.heap_max_bytes == pytest.approx(128 * MIB, abs=64)


def test_collections_are_counted() -> None:
    assert (recorded("g1").collector, recorded("g1").n_full_collections) == ("GarbageFirst", 1)
    assert recorded("parallel").n_full_collections == 1
    assert recorded("parallel").n_young_collections > 0
    assert recorded("z").n_concurrent_pauses > 0
    assert 0 < recorded("g1").collection_s < 1


def test_a_jvm_that_does_not_mention_its_heap() -> None:
    assert jvm_memory_of({"java.rt.vmFlags": ""}) is None


@pytest.mark.parametrize("frequency", [0, -1, "x"])
def test_nonsense_counters_are_survived(frequency: int | str) -> None:
    memory = jvm_memory_of(
        {"sun.gc.generation.1.capacity": -5, "sun.gc.generation.1.space.0.used": "x", "sun.os.hrt.frequency": frequency}
    )

    assert memory is not None
    assert (memory.old_used_bytes, memory.old_capacity_bytes, memory.collection_s) == (0, 0, 0.0)


class TestReading:
    @staticmethod
    def add_jvm(proc: Path) -> Path:
        """A process whose root directory is ``PID/root``; returns the directory of the file."""
        directory = add_process(proc, 7, maps=MAPS)
        (directory / "status").write_text(f"Name:\tjava\nUid:\t9\t{os.getuid()}\t9\t9\n")
        published = directory / "root/tmp/hsperfdata_ann"
        published.mkdir(parents=True)
        (published / "1").write_bytes((DATA / "java17_g1.perfdata").read_bytes())
        return published

    def test_the_file_is_found_below_the_root_of_the_process(self, tmp_path: Path) -> None:
        self.add_jvm(tmp_path)

        assert read_jvm_memory(7, tmp_path) == recorded("g1")

    def test_a_process_that_publishes_nothing(self, tmp_path: Path) -> None:
        add_process(tmp_path, 7, maps="7fbd525d6000-7fbd525de000 rw-s 00000000 fe:00 99     /tmp/other\n")

        assert read_jvm_memory(7, tmp_path) is None

    def test_an_ended_process_is_gone(self, tmp_path: Path) -> None:
        with pytest.raises(TargetGone):
            read_jvm_memory(7, tmp_path)

    def test_a_file_that_was_tidied_away(self, tmp_path: Path) -> None:
        (self.add_jvm(tmp_path) / "1").unlink()

        assert read_jvm_memory(7, tmp_path) is None

    @staticmethod
    def make_link(published: Path) -> None:
        (published / "1").rename(published / "2")
        (published / "1").symlink_to(published / "2")

    @staticmethod
    def make_link_on_the_way(published: Path) -> None:
        published.rename(published.parent / "elsewhere")
        published.symlink_to(published.parent / "elsewhere")

    @staticmethod
    def make_pipe(published: Path) -> None:
        (published / "1").unlink()
        os.mkfifo(published / "1")

    @staticmethod
    def make_huge(published: Path) -> None:
        os.truncate(published / "1", 1 << 40)

    @staticmethod
    def make_foreign(published: Path) -> None:
        status = published.parents[2] / "status"
        status.write_text(f"Uid:\t9\t{os.getuid() + 1}\t9\t9\n")

    @staticmethod
    def make_broken(published: Path) -> None:
        (published / "1").write_bytes(b"nonsense")

    @pytest.mark.parametrize(
        "spoil", [make_link, make_link_on_the_way, make_pipe, make_huge, make_foreign, make_broken]
    )
    def test_what_is_not_to_be_trusted_is_refused(self, tmp_path: Path, spoil: Callable[[Path], None]) -> None:
        spoil(self.add_jvm(tmp_path))

        with pytest.raises(FormatError):
            read_jvm_memory(7, tmp_path)
