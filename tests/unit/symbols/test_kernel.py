"""Names of kernel functions."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gprof_lite.clock import FakeClock
from gprof_lite.symbols.kernel import REFRESH_EVERY_S, REREAD_AFTER_MISS_S, KernelSymbols

KALLSYMS = """\
ffffffff81000000 T _stext
ffffffff81000100 t do_one_thing
ffffffff81000200 T do_another
ffffffff82000000 T _etext
ffffffff82000010 D some_data
ffffffffc0201000 t ext4_read\t[ext4]
ffffffffc0202000 t bpf_prog_6deef7357e7b4530_sd_fw_egress\t[bpf]
ffffffffc0203000 d ext4_data\t[ext4]
"""


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    (tmp_path / "kallsyms").write_text(KALLSYMS)
    (tmp_path / "modules").write_text("ext4 999424 1 - Live 0xffffffffc0200000\n")
    return tmp_path


@pytest.mark.parametrize(
    ("address", "frame"),
    [
        pytest.param(0xFFFFFFFF81000100, "do_one_thing_[k]", id="first byte"),
        pytest.param(0xFFFFFFFF810001FF, "do_one_thing_[k]", id="last byte"),
        pytest.param(0xFFFFFFFF82000020, "[unknown]_[k]", id="data is no code"),
        pytest.param(0xFFFFFFFFC0201010, "ext4_read_[k]", id="module"),
        pytest.param(0xFFFFFFFFC0202010, "bpf_prog_6deef7357e7b4530_sd_fw_egress_[k]", id="bpf program"),
        pytest.param(0xFFFFFFFFC0204000, "[unknown]_[k]", id="behind all"),
        pytest.param(0xFFFFFFFF80000000, "[unknown]_[k]", id="before all"),
    ],
)
def test_an_address_has_the_name_of_the_code_that_covers_it(proc: Path, address: int, frame: str) -> None:
    assert KernelSymbols(proc).frame(address) == frame


def test_many_users_share_one_table(proc: Path) -> None:
    # GIVEN one table and six threads that ask it
    symbols = KernelSymbols(proc)
    frames: list[str] = []
    threads = [threading.Thread(target=lambda: frames.append(symbols.frame(0xFFFFFFFF81000100))) for _ in range(6)]

    # WHEN they all ask
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    # THEN it was read once
    assert frames == ["do_one_thing_[k]"] * 6
    assert symbols.statistics().n_reads == 1


def test_hidden_addresses_are_said_in_words(tmp_path: Path) -> None:
    # GIVEN what we see without CAP_SYSLOG
    (tmp_path / "kallsyms").write_text("0000000000000000 T _stext\n0000000000000000 t do_one_thing\n")
    symbols = KernelSymbols(tmp_path)

    # THEN frames have no name, and the reason is told
    assert symbols.frame(0xFFFFFFFF81000100) == "[unknown]_[k]"
    assert "kptr_restrict" in symbols.statistics().trouble
    assert symbols.statistics().n_symbols == 0


def test_without_the_file_the_reason_is_told(tmp_path: Path) -> None:
    symbols = KernelSymbols(tmp_path)
    assert symbols.frame(0xFFFFFFFF81000100) == "[unknown]_[k]"
    assert "cannot be read" in symbols.statistics().trouble


def test_a_module_that_is_loaded_later_gets_its_names(proc: Path) -> None:
    # GIVEN a table that was read
    clock = FakeClock()
    symbols = KernelSymbols(proc, clock)
    assert symbols.frame(0xFFFFFFFFC0300010) == "[unknown]_[k]"

    # WHEN a module is loaded
    (proc / "kallsyms").write_text(KALLSYMS + "ffffffffc0300000 t fresh\t[new]\nffffffffc0301000 d end\t[new]\n")
    (proc / "modules").write_text("new 4096 0 - Live 0xffffffffc0300000\n")
    clock.advance(REFRESH_EVERY_S)

    # THEN its functions have names
    assert symbols.frame(0xFFFFFFFFC0300010) == "fresh_[k]"


def test_garbage_does_not_have_the_table_read_again_and_again(proc: Path) -> None:
    # GIVEN addresses that never have a name
    clock = FakeClock()
    symbols = KernelSymbols(proc, clock)
    n_looks = 100
    for _ in range(n_looks):
        symbols.frame(0xFFFFFFFF80000000)
        clock.advance(REFRESH_EVERY_S)

    # THEN the table was read at its slow pace
    assert symbols.statistics().n_reads <= 1 + n_looks * REFRESH_EVERY_S / REREAD_AFTER_MISS_S


@given(st.binary(max_size=300))
@settings(max_examples=100, deadline=None)
def test_no_bytes_break_the_reader(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    proc = tmp_path_factory.mktemp("proc")
    (proc / "kallsyms").write_bytes(data)
    assert KernelSymbols(proc).frame(0xFFFFFFFF81000100).endswith("_[k]")
