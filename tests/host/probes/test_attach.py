"""Attaching to processes as they are: other namespaces, deleted files, traced, filtered, gone; and letting go again."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from gprof_lite.errors import ProbeError, TargetGone
from gprof_lite.probes import system_call
from gprof_lite.probes.allocators import AllocatorModule, find_allocators
from gprof_lite.probes.attach import KernelUprobes, ProbeKind, UprobeSite, attach_uprobe, attach_uprobes, kernel_uprobes
from gprof_lite.probes.loader import open_object
from gprof_lite.probes.object import BpfObject
from tests.host.probes.known_calls import Target, build, observed, observing, running

BREAKPOINT = b"\xcc"
PTRACE_SEIZE = 0x4206
GIVE_UP_S = 5.0


@pytest.fixture(scope="module")
def kernel() -> KernelUprobes:
    return kernel_uprobes()


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("glibc", tmp_path_factory.mktemp("known"))


@pytest.fixture(scope="module")
def static_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("glibc-static", tmp_path_factory.mktemp("known"))


@pytest.fixture
def loaded(kernel: KernelUprobes) -> Iterator[BpfObject]:
    with open_object("calibrate") as bpf:
        assert kernel.multi_type is not None
        for name in ("count_entry", "count_return", "skip_return"):
            bpf.set_attach_type(name, kernel.multi_type)
        bpf.load()
        yield bpf


def malloc_of(pid: int) -> tuple[AllocatorModule, int]:
    """The module with malloc, and where in it the probe goes."""
    module = find_allocators(pid).modules[0]
    return module, module.functions["malloc"].probe_file_offset


def byte_at_probe(pid: int) -> bytes:
    """What is in the process's memory where malloc is probed."""
    module, offset = malloc_of(pid)
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        addresses, permissions, start_offset = line.split()[:3]
        if permissions[2] == "x" and line.endswith(module.path):
            start = int(addresses.split("-")[0], 16)
            with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
                memory.seek(start + offset - int(start_offset, 16))
                return memory.read(1)
    raise AssertionError("malloc is not mapped")


def leaf_of(pid: int) -> int:
    """The process at the end of a line of children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return leaf_of(int(children[0])) if children else pid


class NamespacedTarget(Target):
    @property
    def pid(self) -> int:
        return leaf_of(self.process.pid)


@contextmanager
def in_namespaces(*options: str, script: str, program: Path) -> Iterator[NamespacedTarget]:
    unshare = shutil.which("unshare")
    assert unshare is not None
    argv = [unshare, *options, "--kill-child", "--fork", "sh", "-c", script, "sh", str(program)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield NamespacedTarget(process)
        finally:
            process.kill()


def test_only_the_process_that_was_asked_for_is_probed(program: Path, kernel: KernelUprobes) -> None:
    # GIVEN two processes of the same program
    with running(program) as target, running(program) as other, observed(target, kernel) as (observer, _):
        # WHEN
        other.call("malloc")

        # THEN
        assert observer.seen("malloc")[0] == 0
        assert byte_at_probe(target.pid) == BREAKPOINT
        assert byte_at_probe(other.pid) != BREAKPOINT
        assert observer.difference("malloc") == ""


@pytest.mark.parametrize("multi", [pytest.param(True, id="multi"), pytest.param(False, id="perf")])
def test_nothing_is_left_after_closing(program: Path, kernel: KernelUprobes, multi: bool) -> None:
    # GIVEN
    kernel = kernel if multi else kernel.without_multi()
    with running(program) as target:
        untouched = byte_at_probe(target.pid)
        with observed(target, kernel):
            assert byte_at_probe(target.pid) == BREAKPOINT

        # THEN
        assert byte_at_probe(target.pid) == untouched
        assert target.call("malloc")[0] == 1000


def test_an_agent_that_is_killed_leaves_no_probe_and_no_harm(program: Path) -> None:
    # GIVEN
    attach = (
        "import sys, time\n"
        "from gprof_lite.probes.attach import kernel_uprobes\n"
        "from tests.host.probes.known_calls import Target, observed\n"
        "class Known: pid, code = int(sys.argv[1]), (0, 1)\n"
        "with observed(Known, kernel_uprobes()):\n"
        "    print('attached', flush=True)\n"
        "    time.sleep(60)\n"
    )
    with running(program) as target:
        untouched = byte_at_probe(target.pid)
        argv = [sys.executable, "-c", attach, str(target.pid)]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, cwd=Path(__file__).parents[3]) as agent:
            assert agent.stdout is not None
            assert agent.stdout.readline() == b"attached\n"
            assert byte_at_probe(target.pid) == BREAKPOINT

            # WHEN
            agent.kill()

        # THEN the kernel takes the probes away by itself
        give_up_at = time.monotonic() + GIVE_UP_S
        while byte_at_probe(target.pid) != untouched and time.monotonic() < give_up_at:
            time.sleep(0.05)
        assert byte_at_probe(target.pid) == untouched
        assert target.call("malloc")[0] == 1000


@pytest.mark.parametrize("change", ["deleted", "replaced"])
def test_a_program_whose_file_is_no_more_what_it_was(
    static_program: Path, kernel: KernelUprobes, tmp_path: Path, change: str
) -> None:
    # GIVEN
    copy = tmp_path / "program"
    shutil.copy(static_program, copy)
    with running(copy) as target:
        copy.unlink()
        if change == "replaced":
            copy.write_bytes(b"\x7fELF, but another one")

        # WHEN
        with observed(target, kernel) as (observer, allocators):
            # THEN
            assert allocators.problems == ()
            assert observer.difference("malloc") == ""


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(("--mount",), id="mount"),
        pytest.param(("--mount", "--pid", "--mount-proc"), id="mount and pid"),
        pytest.param(("--user", "--map-root-user", "--mount", "--pid"), id="user, mount and pid"),
    ],
)
def test_a_program_in_other_namespaces(static_program: Path, kernel: KernelUprobes, options: tuple[str, ...]) -> None:
    # GIVEN a program on a file system that we do not see
    script = 'mount -t tmpfs none /mnt && cp "$1" /mnt/hidden && exec /mnt/hidden'
    with in_namespaces(*options, script=script, program=static_program) as target:
        assert not Path("/mnt/hidden").exists()

        # THEN
        with observed(target, kernel) as (observer, allocators):
            assert allocators.modules[0].path == "/mnt/hidden"
            assert observer.difference("malloc") == ""


def test_a_program_on_an_overlay_as_containers_have_it(static_program: Path, kernel: KernelUprobes) -> None:
    # GIVEN
    script = (
        'mount -t tmpfs none /mnt && cd /mnt && mkdir lower upper work merged && cp "$1" lower/program && '
        "mount -t overlay none -o lowerdir=lower,upperdir=upper,workdir=work merged && exec merged/program"
    )
    with (
        in_namespaces("--mount", script=script, program=static_program) as target,
        observed(target, kernel) as (observer, allocators),
    ):
        # THEN
        assert allocators.problems == ()
        assert observer.difference("malloc") == ""


def test_a_process_that_is_traced_already(program: Path, kernel: KernelUprobes) -> None:
    # GIVEN a debugger on the target
    libc = ctypes.CDLL(None, use_errno=True)
    with running(program) as target:
        assert libc.ptrace(PTRACE_SEIZE, target.pid, None, None) == 0

        # THEN
        with observed(target, kernel) as (observer, _):
            assert observer.difference("malloc") == ""


def test_a_process_with_five_thousand_mappings(program: Path, kernel: KernelUprobes, tmp_path: Path) -> None:
    # GIVEN a library that maps a page, 5,000 times with alternating rights so that they stay apart
    source = (
        "#include <sys/mman.h>\n"
        "__attribute__((constructor)) static void map_many(void) {\n"
        "  for (int i = 0; i < 5000; i++)\n"
        "    mmap(0, 4096, i % 2 ? PROT_READ : PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);\n"
        "}\n"
    )
    (tmp_path / "many.c").write_text(source)
    gcc = shutil.which("gcc")
    assert gcc is not None
    library = tmp_path / "many.so"
    subprocess.run([gcc, "-shared", "-fPIC", "-o", str(library), str(tmp_path / "many.c")], check=True)

    # WHEN
    with running(program, LD_PRELOAD=str(library)) as target, observed(target, kernel) as (observer, allocators):
        # THEN
        assert len(allocators.executable) > 2000
        assert observer.difference("malloc") == ""


def test_a_program_without_libc_is_said_to_have_no_allocator(tmp_path: Path) -> None:
    # GIVEN a program that only waits
    source = (
        ".globl _start\n_start: lea msg(%rip), %rsi; mov $1, %edi; mov $1, %edx; mov $1, %eax; syscall\n"
        'mov $34, %eax; syscall\nmov $60, %eax; xor %edi, %edi; syscall\n.data\nmsg: .ascii "x"\n'
    )
    (tmp_path / "wait.s").write_text(source)
    gcc = shutil.which("gcc")
    assert gcc is not None
    bare = tmp_path / "wait"
    subprocess.run([gcc, "-nostdlib", "-static", "-o", str(bare), str(tmp_path / "wait.s")], check=True)

    # WHEN
    with subprocess.Popen([str(bare)], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.read(1) == b"x"
            allocators = find_allocators(process.pid)
        finally:
            process.kill()

    # THEN
    assert allocators.modules == ()
    assert allocators.why_none == "wait is statically linked and has no allocation functions"


def test_a_process_that_ended_is_gone(program: Path, kernel: KernelUprobes, loaded: BpfObject) -> None:
    # GIVEN
    with running(program) as target:
        module, offset = malloc_of(target.pid)
        file = os.open(module.openable, os.O_RDONLY)
    try:
        # THEN, whether by the path or by a file that was opened in time
        with pytest.raises(TargetGone):
            find_allocators(target.pid)
        for way in (module.openable, file):
            with pytest.raises(TargetGone):
                attach_uprobe(loaded.program_fd("count_entry"), way, offset, target.pid, kernel=kernel)
    finally:
        os.close(file)


def test_a_zombie_has_no_allocator(program: Path) -> None:
    # GIVEN a process that ended and was not waited for
    with running(program) as target:
        os.kill(target.pid, signal.SIGKILL)
        os.waitid(os.P_PID, target.pid, os.WEXITED | os.WNOWAIT)

        # THEN
        assert find_allocators(target.pid).modules == ()


def test_a_place_that_another_tool_holds_with_a_reference_counter_is_refused_in_words(
    static_program: Path, kernel: KernelUprobes, loaded: BpfObject
) -> None:
    # GIVEN a perf event on malloc, with the counter that tools for static probes use
    with running(static_program) as target, ExitStack() as held:
        module, offset = malloc_of(target.pid)
        path = ctypes.create_string_buffer(module.openable.encode())
        attributes = bytearray(128)
        struct.pack_into("<IIQ", attributes, 0, kernel.perf_type, 128, 8 << 32)
        struct.pack_into("<QQ", attributes, 56, ctypes.addressof(path), offset)
        held.callback(os.close, system_call.perf_event_open(bytes(attributes), target.pid, -1))

        # THEN
        with pytest.raises(ProbeError, match="another reference counter"):
            attach_uprobe(loaded.program_fd("count_entry"), module.openable, offset, target.pid, kernel=kernel)
        assert target.call("malloc")[0] == 1000


def test_all_places_are_attached_or_none(program: Path, kernel: KernelUprobes) -> None:
    # GIVEN a second place that is no code
    perf = kernel.without_multi()
    with running(program) as target, observing(target, perf) as observer:
        module, offset = malloc_of(target.pid)
        untouched = byte_at_probe(target.pid)
        sites = (UprobeSite(offset), UprobeSite(1 << 40))

        # WHEN
        with pytest.raises(ProbeError):
            attach_uprobes(
                observer.bpf.program_fd("count_entry"),
                module.openable,
                sites,
                target.pid,
                kind=ProbeKind.ENTRY,
                kernel=perf,
            )

        # THEN
        assert byte_at_probe(target.pid) == untouched


def test_sessions_need_a_kernel_that_has_them(program: Path, kernel: KernelUprobes, loaded: BpfObject) -> None:
    old = kernel.without_multi()
    with running(program) as target:
        module, offset = malloc_of(target.pid)
        with pytest.raises(ProbeError, match="no session probes"):
            attach_uprobe(
                loaded.program_fd("skip_return"),
                module.openable,
                offset,
                target.pid,
                kind=ProbeKind.SESSION,
                kernel=old,
            )


def test_without_privilege_it_says_which_is_missing(program: Path, kernel: KernelUprobes) -> None:
    # GIVEN a child of ours that gave up being root, with the program's descriptor
    perf = kernel.without_multi()
    with running(program) as target, observing(target, perf) as observer:
        module, offset = malloc_of(target.pid)
        file = os.open(module.openable, os.O_RDONLY)
        program_fd = observer.bpf.program_fd("count_entry")
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            words = "no error"
            try:
                os.setuid(65534)
                attach_uprobe(program_fd, file, offset, target.pid, kernel=perf)
            except ProbeError as exc:
                words = f"{exc} ({exc.hint})"
            finally:
                os.write(writer, words.encode())
                os._exit(0)
        os.close(file)
        os.close(writer)
        with os.fdopen(reader) as answer:
            said = answer.read()
        os.waitpid(child, 0)

    # THEN
    assert "not permitted" in said
    assert "CAP_BPF" in said
