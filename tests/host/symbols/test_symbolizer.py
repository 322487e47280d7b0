"""The symbolizer on real processes of this host."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gprof_lite.host.identity import ProcessIdentity
from gprof_lite.host.maps import read_maps
from gprof_lite.model.frame import TRUNCATED, Stack
from gprof_lite.stop import StopToken
from gprof_lite.supervise.warden_client import Warden
from gprof_lite.symbols.converter import ChildConverter
from gprof_lite.symbols.options import SymbolOptions
from gprof_lite.symbols.symbolizer import Symbolizer

WITHIN_S = 20.0
Start = Callable[..., "subprocess.Popen[bytes]"]

PROGRAM = """\
#include <stdio.h>
#include <stdint.h>
#include <unistd.h>
__attribute__((noinline)) int second_function(int n) { return n * 7 + 1; }
__attribute__((noinline)) int first_function(int n) { return second_function(n) + 3; }
int main(int n, char **names) {
  FILE *said = fopen(names[1], "w");
  fprintf(said, "%p %p", (void *)(uintptr_t)first_function, (void *)(uintptr_t)second_function);
  fclose(said);
  rename(names[1], names[2]);
  pause();
  return first_function(n);
}
"""


@pytest.fixture
def symbolizer(tmp_path: Path) -> Iterator[Symbolizer]:
    directory = tmp_path / "symbols"
    directory.mkdir()
    with (
        StopToken() as stop,
        Warden() as warden,
        Symbolizer(SymbolOptions(), ChildConverter(warden, stop), directory) as made,
    ):
        yield made


def build(directory: Path, *flags: str) -> Path:
    """The program above, from gcc with these flags."""
    (directory / "program.c").write_text(PROGRAM)
    command = ["gcc", "-O1", *flags, "-o", str(directory / "program"), str(directory / "program.c")]
    subprocess.run(command, check=True)
    return directory / "program"


def addresses_of(program: Path, start_target: Start, *before: str) -> tuple[ProcessIdentity, list[int]]:
    """Start it. Return who it is and where its two functions are, as it says itself."""
    said = program.with_name("addresses")
    process = start_target(*before, program, f"{said}.new", said)
    wait_for(said.exists)
    return ProcessIdentity.of(process.pid), [int(each, 16) for each in said.read_text().split()]


def wait_for(condition: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < give_up_at
        time.sleep(0.02)


def names(symbolizer: Symbolizer, identity: ProcessIdentity, addresses: list[int]) -> list[Stack]:
    """One stack for each address."""
    stacks = [[address] for address in addresses]
    return symbolizer.stacks(identity.pid, identity.start_time_ticks, stacks, leaf_is_return=False)


@pytest.mark.parametrize(
    "flags",
    [
        pytest.param(["-pie", "-fPIE"], id="position independent"),
        pytest.param(["-no-pie"], id="fixed"),
        pytest.param(["-static"], id="static"),
        pytest.param(["-static-pie"], id="static and position independent"),
        pytest.param(["-g"], id="with debug information"),
        pytest.param(["-Wl,-z,noseparate-code"], id="code in one segment with the rest"),
    ],
)
def test_a_program_is_named_however_it_was_linked(
    flags: list[str], symbolizer: Symbolizer, start_target: Start, tmp_path: Path
) -> None:
    identity, addresses = addresses_of(build(tmp_path, *flags), start_target)
    assert names(symbolizer, identity, addresses) == [("first_function",), ("second_function",)]


def test_a_deleted_and_replaced_program_keeps_its_own_names(
    symbolizer: Symbolizer, start_target: Start, tmp_path: Path
) -> None:
    # GIVEN a running program whose file is now another one
    program = build(tmp_path)
    identity, addresses = addresses_of(program, start_target)
    program.unlink()
    shutil.copy("/bin/true", program)

    # THEN the file it really runs is read
    assert names(symbolizer, identity, addresses) == [("first_function",), ("second_function",)]


def test_a_program_in_another_root_and_mount_namespace_is_named(
    symbolizer: Symbolizer, start_target: Start, tmp_path: Path
) -> None:
    # GIVEN a static program in a root of its own
    program = build(tmp_path, "-static")
    root = tmp_path / "root"
    root.mkdir()
    shutil.move(program, root / "program")
    process = start_target("unshare", "--mount", "--pid", "--fork", "chroot", root, "/program", "/new", "/said")
    said = root / "said"
    wait_for(said.exists)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    identity = ProcessIdentity.of(int(children[0]))
    try:
        # THEN its functions have names
        found = names(symbolizer, identity, [int(each, 16) for each in said.read_text().split()])
        assert found == [("first_function",), ("second_function",)]
    finally:
        os.kill(identity.pid, 9)
        # Killed before it has reaped its child, unshare would leave us a zombie.
        process.wait()


def test_a_stripped_program_is_named_by_its_debug_file(
    symbolizer: Symbolizer, start_target: Start, tmp_path: Path
) -> None:
    program = build(tmp_path, "-g")
    subprocess.run(["objcopy", "--only-keep-debug", program, f"{program}.debug"], check=True)
    subprocess.run(["objcopy", "--strip-all", f"--add-gnu-debuglink={program}.debug", program], check=True)
    identity, addresses = addresses_of(program, start_target)
    assert names(symbolizer, identity, addresses) == [("first_function",), ("second_function",)]


def test_a_stripped_go_program_is_named_by_its_own_table(
    symbolizer: Symbolizer, start_target: Start, tmp_path: Path
) -> None:
    # GIVEN a Go program without symbols that has ended since
    go = shutil.which("go")
    if go is None:
        pytest.skip("needs Go")
    (tmp_path / "main.go").write_text('package main\n\nimport "time"\n\nfunc main() { time.Sleep(time.Hour) }\n')
    environment = {**os.environ, "GO111MODULE": "off", "GOCACHE": str(tmp_path / "cache"), "HOME": str(tmp_path)}
    command = [go, "build", "-ldflags", "-s -w", "-o", "program", "main.go"]
    subprocess.run(command, check=True, cwd=tmp_path, env=environment)
    process = start_target(tmp_path / "program")
    identity = ProcessIdentity.of(process.pid)
    wait_for(lambda: any(each.path.endswith("program") for each in read_maps(process.pid, executable_only=True)))
    symbolizer.remember(identity.pid, identity.start_time_ticks)
    code = next(each for each in read_maps(process.pid, executable_only=True) if each.path.endswith("program"))
    process.kill()
    process.wait()

    # THEN its code has names of Go functions
    found = names(symbolizer, identity, list(range(code.start + 0x1000, code.end - 0x2000, 0x800)))
    named = [stack[-1] for stack in found if not stack[-1].startswith("program+")]
    assert len(named) > 0.95 * len(found)
    assert any(name.startswith("runtime.") for name in named)


def test_addresses_of_the_vdso_are_named(symbolizer: Symbolizer) -> None:
    # GIVEN our own vdso
    mapping = next(each for each in read_maps(os.getpid(), executable_only=True) if each.path == "[vdso]")
    identity = ProcessIdentity.of(os.getpid())

    # WHEN all of it is looked up
    found = names(symbolizer, identity, list(range(mapping.start, mapping.end, 16)))

    # THEN the functions it is there for are found; each has two names for one address
    plain = {stack[-1].removeprefix("__vdso_") for stack in found}
    assert {"clock_gettime", "gettimeofday", "getcpu"} <= plain


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(["/usr/bin/python3", "-c", "while True: sorted(str(n) for n in range(99))"], id="python3"),
        pytest.param(["/usr/bin/perl", "-e", "while (1) { join(',', map { $_ x 3 } 1..99) }"], id="perl"),
        pytest.param(["/bin/bash", "-c", "while :; do x=$((x+1)); y=${x//1/2}; done"], id="bash"),
    ],
)
def test_a_stock_process_is_named_as_well_as_perf_does(
    command: list[str], symbolizer: Symbolizer, start_target: Start, tmp_path: Path
) -> None:
    # GIVEN samples of a program as Debian ships it (stripped: static functions have no name for anybody)
    process = start_target(*command)
    identity = ProcessIdentity.of(process.pid)
    data = tmp_path / "perf.data"
    record = ["perf", "record", "-q", "-e", "cpu-clock:u", "-F", "499", "-p", str(process.pid), "-o", str(data)]
    subprocess.run([*record, "--", "sleep", "1"], check=True, stderr=subprocess.DEVNULL)
    script = ["perf", "script", "-F", "ip,sym", "-i", str(data)]
    lines = subprocess.run(script, check=True, capture_output=True, text=True).stdout.splitlines()
    # perf makes names for the jump table, name@plt; we say where it is.
    samples = [line.split(None, 1) for line in lines if line.strip() and not line.endswith("@plt")]
    named_by_perf = [(int(ip, 16), name) for ip, name in samples if "[unknown]" not in name]
    assert len(named_by_perf) > 100

    # WHEN we name those that perf has a name for
    found = names(symbolizer, identity, [address for address, _ in named_by_perf])

    # THEN we have one for more than 99 %
    n_unnamed = sum("+0x" in stack[-1] or stack[-1] == TRUNCATED for stack in found)
    assert n_unnamed <= 0.01 * len(named_by_perf)


def test_kernel_frames_have_names(symbolizer: Symbolizer) -> None:
    # GIVEN where the kernel says a function is
    with open("/proc/kallsyms") as file:
        address = next(int(line.split()[0], 16) for line in file if line.split()[2] == "schedule")

    # THEN it is called that
    assert symbolizer.kernel_frame(address + 8) == "schedule_[k]"
    assert symbolizer.statistics().kernel_bytes <= 16 << 20
    assert symbolizer.statistics().n_kernel_reads == 1
