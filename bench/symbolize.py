"""The symbolizer beside what others do: memory of the kernel's symbols, time for 10,000 addresses.

    sudo .venv/bin/python bench/symbolize.py

Each memory figure comes from a process of its own. The addresses lie at random in the code of a running CPython with
ssl, sqlite and ctypes: libpython or python, libc, libssl, libcrypto, libstdc++ where it is loaded. addr2line gets them
in one call for each file, which is the best that it can do.
"""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from gprof_lite.host.identity import ProcessIdentity
from gprof_lite.host.maps import Mapping, read_maps
from gprof_lite.stop import StopToken
from gprof_lite.supervise.warden_client import Warden
from gprof_lite.symbols.converter import ChildConverter
from gprof_lite.symbols.elf_header import read_elf_header
from gprof_lite.symbols.options import SymbolOptions
from gprof_lite.symbols.symbolizer import Symbolizer

N_ADDRESSES = 10_000
TARGET = "import ssl, sqlite3, ctypes, time; ctypes.CDLL('libstdc++.so.6'); time.sleep(1000)"

MEMORY = """
def rss_kb():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmRSS")).split()[1])
from gprof_lite.symbols.kernel import KernelSymbols
before = rss_kb()
{what}
print(rss_kb() - before)
"""
OURS = "tables = [KernelSymbols()]; tables[0].frame(0xffffffff81000100)"
NAIVE = """
def read():
    rows = []
    for line in open("/proc/kallsyms"):
        address, _, name = line.split()[:3]
        rows.append((int(address, 16), name))
    return rows
tables = [read() for _ in range({n})]
"""


def memory_mb(what: str) -> float:
    done = subprocess.run([sys.executable, "-c", MEMORY.format(what=what)], check=True, capture_output=True, text=True)
    return int(done.stdout) / 1024


def pick(mappings: tuple[Mapping, ...]) -> list[int]:
    chosen = random.Random(4)
    files = [each for each in mappings if each.is_file]
    return [
        chosen.randrange(each.start, each.end)
        for each in chosen.choices(files, [each.end - each.start for each in files], k=N_ADDRESSES)
    ]


def time_addr2line(mappings: tuple[Mapping, ...], addresses: list[int]) -> float:
    by_file: defaultdict[str, list[str]] = defaultdict(list)
    for address in addresses:
        mapping = next(each for each in mappings if each.start <= address < each.end)
        with open(mapping.path, "rb") as file:
            header = read_elf_header(file.fileno(), mapping.path)
        linked = header.address_of(address - mapping.start + mapping.offset)
        if linked is not None:
            by_file[mapping.path].append(hex(linked))
    begun_s = time.monotonic()
    for path, each in by_file.items():
        subprocess.run(
            ["addr2line", "-f", "-i", "-C", "-e", path],
            input="\n".join(each),
            text=True,
            capture_output=True,
            check=True,
        )
    return time.monotonic() - begun_s


def main() -> None:
    ours = memory_mb(OURS)
    print(f"{'kernel symbols':40} {'MB':>8} {'ratio':>8}")
    print(f"{'ours, shared by all':40} {ours:8.1f} {1:8.1f}")
    for n in (1, 6):
        naive = memory_mb(NAIVE.format(n=n))
        print(f"{f'list of (address, name), {n} copies':40} {naive:8.1f} {naive / ours:8.1f}")

    target = subprocess.Popen(["/usr/bin/python3", "-c", TARGET])
    try:
        time.sleep(1)
        identity = ProcessIdentity.of(target.pid)
        mappings = read_maps(target.pid, executable_only=True)
        addresses = pick(mappings)
        stacks = [[address] for address in addresses]
        with (
            tempfile.TemporaryDirectory() as directory,
            StopToken() as stop,
            Warden() as warden,
            Symbolizer(SymbolOptions(), ChildConverter(warden, stop), Path(directory)) as symbolizer,
        ):
            seconds = []
            for _ in range(2):
                begun_s = time.monotonic()
                found = symbolizer.stacks(identity.pid, identity.start_time_ticks, stacks, lines=True)
                seconds.append(time.monotonic() - begun_s)
            n_named = sum("+0x" not in stack[-1] for stack in found)
        theirs = time_addr2line(mappings, addresses)
    finally:
        target.kill()
        target.wait()
    print(f"\n{f'{N_ADDRESSES} addresses, names, inlines and lines':40} {'s':>8} {'ratio':>8}")
    print(f"{f'ours, cold ({n_named} named)':40} {seconds[0]:8.2f} {1:8.1f}")
    print(f"{'ours, again':40} {seconds[1]:8.2f} {seconds[1] / seconds[0]:8.2f}")
    print(f"{'addr2line -f -i -C':40} {theirs:8.2f} {theirs / seconds[0]:8.1f}")


if __name__ == "__main__":
    main()
