"""The child that prepares symbols: what happens to it costs only what it reads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gprof_lite.clock import Deadline
from gprof_lite.stop import StopToken
from gprof_lite.supervise.warden_client import Warden
from gprof_lite.symbols.converter import ChildConverter, Conversion
from tests.symbol_world import ELF


@pytest.fixture
def converter() -> Iterator[ChildConverter]:
    with StopToken() as stop, Warden() as warden:
        yield ChildConverter(warden, stop)


def test_good_files_are_made_and_bad_ones_are_empty(converter: ChildConverter, tmp_path: Path) -> None:
    # GIVEN hostile files between two good ones
    (tmp_path / "cut").write_bytes((ELF / "leaf-pie").read_bytes()[:9000])
    (tmp_path / "garbage").write_bytes(b"\x7fELF\x02\x01\x01" + b"\xff" * 5000)
    names = [ELF / "leaf-pie", tmp_path / "cut", tmp_path / "garbage", tmp_path / "missing", ELF / "sizes"]
    wanted = [Conversion(str(path), tmp_path / f"{index}.symcache") for index, path in enumerate(names)]

    # WHEN all are wanted at once
    converter.convert(wanted, Deadline.after(30))

    # THEN the good ones are there
    sizes = [each.target.stat().st_size for each in wanted]
    assert sizes[0] > 0
    assert sizes[4] > 0
    assert sizes[2] == sizes[3] == 0


def test_a_file_that_kills_the_child_costs_only_itself(converter: ChildConverter, tmp_path: Path) -> None:
    # GIVEN a target that cannot be written, so that the child ends at it
    broken = Conversion(str(ELF / "leaf-pie"), tmp_path / "no" / "such" / "directory")
    good = [Conversion(str(ELF / "sizes"), tmp_path / f"{index}.symcache") for index in range(2)]

    # WHEN it stands between two others
    converter.convert([good[0], broken, good[1]], Deadline.after(30))

    # THEN those are made, and the failure is counted
    assert all(each.target.stat().st_size for each in good)
    assert converter.n_failed_children == 1


def test_out_of_time_nothing_is_started(converter: ChildConverter, tmp_path: Path) -> None:
    wanted = [Conversion(str(ELF / "sizes"), tmp_path / "x")]
    converter.convert(wanted, Deadline.after(0))
    assert not wanted[0].target.exists()
