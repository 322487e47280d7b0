"""The child on which probes are tried out: calls allocation functions, a known number of times with known arguments.

Runs by itself, with nothing but the standard library: ``python -I -S calibration_program.py``. Told by signals:

    SIGUSR1  time the pair malloc and free
    SIGUSR2  call each function, in a second thread, and say what an observer must have seen
    SIGHUP   the same of malloc, with a seccomp filter that refuses system calls made for probes: the kernel may end us

Each is answered by one line of JSON on standard output; the first line, unasked, says from where it will call. The
calls are made by a few bytes of machine code, because the interpreter calls the same functions for its own purposes:
by the return address an observer can tell them apart.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import signal
import sys
import threading
import time
from collections.abc import Callable

# x86-64, System V calling convention; assembled with GNU as from the text beside it.
#
# call_each(function, n, arguments, results): arguments are n times six words, results n words.
#   push rbx; push rbp; push r12; push r13; sub rsp, 8
#   mov rbx, rdi; mov rbp, rsi; mov r12, rdx; mov r13, rcx
#   1: mov rdi, [r12]; mov rsi, [r12+8]; mov rdx, [r12+16]; mov rcx, [r12+24]; mov r8, [r12+32]; mov r9, [r12+40]
#   xor eax, eax; call rbx; mov [r13], rax; add r12, 48; add r13, 8; dec rbp; jnz 1b
#   add rsp, 8; pop r13; pop r12; pop rbp; pop rbx; ret
CALL_EACH = bytes.fromhex(
    "5355415441554883ec084889fb4889f54989d44989cd498b3c24498b742408498b542410498b4c24184d8b4424204d8b4c2428"
    "31c0ffd3498945004983c4304983c50848ffcd75ce4883c408415d415c5d5bc3"
)
# call_pairs(malloc, free, n, size)
#   the same registers are saved, and hold: rbx malloc, rbp free, r12 n, r13 size
#   1: mov rdi, r13; call rbx; mov rdi, rax; call rbp; dec r12; jnz 1b
CALL_PAIRS = bytes.fromhex(
    "5355415441554883ec084889fb4889f54989d44989cd4c89efffd34889c7ffd549ffcc75f14883c408415d415c5d5bc3"
)
PAGE_BYTES = 4096

N_CALLS = 1000
N_PAIRS = 200
N_REPEATS = 10
BLOCK_BYTES = 100
MASK = (1 << 64) - 1

Calls = list[tuple[int, ...]]


class Caller:
    """The machine code, in a page of its own: a file's, for some systems let no writable memory be executed."""

    def __init__(self) -> None:
        if os.uname().machine != "x86_64":
            raise SystemExit(f"there is no machine code for {os.uname().machine}")
        fd = os.memfd_create("gprof-lite-calibration", os.MFD_CLOEXEC)
        try:
            os.write(fd, CALL_EACH.ljust(len(CALL_EACH) + 16, b"\xcc") + CALL_PAIRS)
            os.ftruncate(fd, PAGE_BYTES)
            self.page = mmap.mmap(fd, PAGE_BYTES, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_EXEC)
        finally:
            os.close(fd)
        libc = ctypes.CDLL(None)
        self.start = find_mapping("gprof-lite-calibration")
        self.libc = libc
        words = ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p
        self.call_each = ctypes.CFUNCTYPE(None, *words)(self.start)
        self.call_pairs = ctypes.CFUNCTYPE(None, *words)(self.start + len(CALL_EACH) + 16)

    def address(self, name: str) -> int:
        return ctypes.cast(getattr(self.libc, name), ctypes.c_void_p).value or 0

    def calls(self, name: str, arguments: Calls) -> list[int]:
        """Call a function of libc with each of these arguments; return its results."""
        flat = [word for call in arguments for word in (*call, *[0] * (6 - len(call)))]
        words = (ctypes.c_uint64 * len(flat))(*flat)
        results = (ctypes.c_uint64 * len(arguments))()
        self.call_each(self.address(name), len(arguments), ctypes.addressof(words), ctypes.addressof(results))
        return list(results)

    def pair_ns(self) -> float:
        """Nanoseconds for one malloc and one free, the best of a few turns, in CPU time: others may be running."""
        pair = self.address("malloc"), self.address("free")
        best = float("inf")
        for _ in range(N_REPEATS):
            began = time.thread_time_ns()
            self.call_pairs(*pair, N_PAIRS, BLOCK_BYTES)
            best = min(best, (time.thread_time_ns() - began) / N_PAIRS)
        return best


def find_mapping(name: str) -> int:
    """Where the file of that name is mapped executable."""
    with open("/proc/self/maps") as maps:
        for line in maps:
            if name in line and " r-x" in line:
                return int(line.partition("-")[0], 16)
    raise SystemExit("the page of machine code is not mapped")


def sums(arguments: Calls, results: list[int]) -> dict[str, object]:
    """What an observer adds up of these calls."""
    columns = [sum(call[i] for call in arguments if i < len(call)) & MASK for i in range(3)]
    return {"n": len(arguments), "arguments": columns, "result": sum(results) & MASK}


def known_calls(caller: Caller) -> dict[str, object]:
    """Call each function; its argument lists, each in turn, are different from its neighbours'."""
    seen: dict[str, object] = {}

    def call(name: str, arguments: Calls) -> list[int]:
        results = caller.calls(name, arguments)
        seen[name] = sums(arguments, results)
        return results

    slots = (ctypes.c_uint64 * N_CALLS)()
    step = ctypes.addressof(slots)
    blocks = call("malloc", [(BLOCK_BYTES + i % 7,) for i in range(N_CALLS)])
    blocks = call("realloc", [(block, 300 + i % 11) for i, block in enumerate(blocks)])
    blocks += call("calloc", [(1 + i % 5, 24 + i % 3) for i in range(N_CALLS)])
    call("posix_memalign", [(step + 8 * i, 64, 40 + i % 13) for i in range(N_CALLS)])
    blocks += list(slots)
    blocks += call("aligned_alloc", [(64, 64 + i % 5 * 64) for i in range(N_CALLS)])
    call("free", [(block,) for block in blocks])
    page, private = mmap.PROT_READ, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    mapped = call("mmap", [(0, PAGE_BYTES * (1 + i % 3), page, private, MASK, 0) for i in range(100)])
    call("munmap", [(address, PAGE_BYTES * (1 + i % 3)) for i, address in enumerate(mapped)])
    return seen


def in_thread(work: Callable[[], dict[str, object]]) -> dict[str, object]:
    """Probes of some kernels (6.6 to 6.9) see the first thread only; the calls come from another one."""
    answers: list[dict[str, object]] = []
    thread = threading.Thread(target=lambda: answers.append(work()))
    thread.start()
    thread.join()
    return answers[0]


def refuse_probe_calls(libc: ctypes.CDLL) -> None:
    """seccomp(2): system calls 335 to 423, of which the kernel uses 335 and 336 for probes, give EPERM.

    Others of these numbers do not exist on x86-64.
    """
    instructions = [
        (0x20, 0, 0, 0),  # load the number of the system call
        (0x35, 0, 2, 335),  # below: allow
        (0x35, 1, 0, 424),  # from there on: allow
        (0x06, 0, 0, 0x00050001),  # SECCOMP_RET_ERRNO, EPERM
        (0x06, 0, 0, 0x7FFF0000),  # SECCOMP_RET_ALLOW
    ]
    code = b"".join(
        number.to_bytes(2, "little") + bytes((true, false)) + value.to_bytes(4, "little")
        for number, true, false, value in instructions
    )
    buffer = ctypes.create_string_buffer(code, len(code))
    program = (ctypes.c_uint64 * 2)(len(instructions), ctypes.addressof(buffer))
    no_new_privileges, set_filter, mode_filter = 38, 22, 2
    zero = ctypes.c_ulong(0)
    libc.prctl(no_new_privileges, ctypes.c_ulong(1), zero, zero, zero)
    if libc.prctl(set_filter, ctypes.c_ulong(mode_filter), ctypes.byref(program), zero, zero):
        raise SystemExit("no seccomp filter can be set")


def answer(value: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def main() -> None:
    signals = {signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    caller = Caller()
    answer({"start": caller.start, "end": caller.start + PAGE_BYTES})
    while True:
        number = signal.sigwait(signals)
        if number == signal.SIGUSR1:
            answer({"pair_ns": caller.pair_ns()})
        elif number == signal.SIGUSR2:
            answer(in_thread(lambda: known_calls(caller)))
        else:
            refuse_probe_calls(caller.libc)
            blocks = caller.calls("malloc", [(BLOCK_BYTES,)] * N_CALLS)
            caller.calls("free", [(block,) for block in blocks])
            answer({"n": len(blocks)})


if __name__ == "__main__":
    main()
