"""Names of frames from what perf says of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gprof_lite.formats.perf_frame import name_frame
from gprof_lite.model.frame import MAX_FRAME_LENGTH, clean_frame
from tests.data.profiles import PROPERTY


@pytest.mark.parametrize(
    ("text", "frame"),
    [
        pytest.param("__libc_start_call_main (/usr/lib/libc.so.6)", "__libc_start_call_main", id="library"),
        pytest.param("do_syscall_64 ([kernel.kallsyms])", "do_syscall_64_[k]", id="kernel"),
        pytest.param("do_idle ([guest.kernel.kallsyms])", "do_idle_[k]", id="guest kernel"),
        pytest.param("vmx_vcpu_run ([kvm_intel])", "vmx_vcpu_run_[k]", id="module in brackets"),
        pytest.param("ext4_map (/lib/modules/6.1/kernel/fs/ext4.ko.xz)", "ext4_map_[k]", id="module file"),
        pytest.param("schedule (/usr/lib/debug/boot/vmlinux-6.1)", "schedule_[k]", id="kernel file"),
        pytest.param("bpf_prog_1a2b ([bpf_trampoline])", "bpf_prog_1a2b_[k]", id="BPF"),
        pytest.param("__vdso_clock_gettime ([vdso])", "__vdso_clock_gettime", id="vdso"),
        pytest.param("int Spin.maps() (/tmp/perf-32533.map)", "int Spin.maps()_[j]", id="perf map"),
        pytest.param("LazyCompile:*f (/root/jitted-12-3.so)", "LazyCompile:*f_[j]", id="jitdump"),
        pytest.param("[unknown] (/tmp/perf-32533.map)", "[unknown]_[j]", id="unknown JIT: no pid in the name"),
        pytest.param("JS:*f [eval]:1:11 (/tmp/perf-1.map)", "JS:*f [eval]:1:11_[j]", id="JavaScript"),
        pytest.param("shop::Cart<int>::add (inlined)", "shop::Cart<int>::add_[i]", id="inlined"),
        pytest.param("operator new(unsigned long) (/usr/lib/libstdc++.so.6)", "operator new(unsigned long)", id="C++"),
        pytest.param(
            "v8::(anonymous namespace)::Invoke (/usr/bin/node)", "v8::(anonymous namespace)::Invoke", id="anonymous"
        ),
        pytest.param("main (/tmp/burn it (deleted))", "main", id="deleted"),
        pytest.param("[unknown] (/tmp/burn it (deleted))", "[burn it]", id="unknown in a deleted file"),
        pytest.param("f(int (*)[3]) (/opt/my (x86) app/lib.so)", "f(int (*)[3])", id="brackets on both sides"),
        pytest.param("[unknown] ([unknown])", "[unknown]", id="unknown"),
        pytest.param("[unknown] (/usr/lib/libfoo.so)", "[libfoo.so]", id="unknown in a library"),
        pytest.param("[unknown] ([kernel.kallsyms])", "[kernel.kallsyms]_[k]", id="unknown in the kernel"),
        pytest.param("[unknown] ([vdso])", "[vdso]", id="unknown in the vdso"),
        pytest.param("[unknown] (//anon)", "[anon]", id="anonymous memory"),
        pytest.param("[unknown] ([heap])", "[heap]", id="heap"),
        pytest.param("[unknown] ([anon:jit cache])", "[anon:jit cache]", id="named memory"),
        pytest.param("[unknown] (anon_inode:[perf])", "[anon_inode:[perf]]", id="no path"),
        pytest.param("[unknown] (/memfd:doublemapper (deleted))", "[memfd:doublemapper]", id="memfd"),
        pytest.param(" (/usr/bin/x)", "[x]", id="empty symbol"),
        pytest.param("Ljava/lang/String;::hash (/tmp/perf-1.map)", "Ljava/lang/String:::hash_[j]", id="semicolon"),
    ],
)
def test_name(text: str, frame: str) -> None:
    assert name_frame(text, high_address=False) == frame


@pytest.mark.parametrize("text", ["", "main", "main (/usr/bin/x", "main(/usr/bin/x)", "(x)"])
def test_other_shapes_are_no_frames(text: str) -> None:
    assert name_frame(text, high_address=False) is None


@pytest.mark.parametrize(
    ("text", "frame"),
    [
        ("[unknown] ([unknown])", "[unknown]_[k]"),
        ("[unknown] ([vsyscall])", "[vsyscall]"),
        ("main (/usr/bin/x)", "main"),
    ],
)
def test_address_decides_only_where_the_module_does_not(text: str, frame: str) -> None:
    assert name_frame(text, high_address=True) == frame


@PROPERTY
@given(st.text(), st.text(), st.booleans())
def test_every_frame_is_clean(symbol: str, module: str, high: bool) -> None:
    frame = name_frame(f"{symbol} (/{module})", high_address=high)
    assert frame is not None
    assert clean_frame(frame) == frame


def test_long_symbol_keeps_its_suffix_within_the_bound() -> None:
    frame = name_frame("x" * 10_000 + " ([kernel.kallsyms])", high_address=True)
    assert frame is not None
    assert frame.endswith("_[k]")
    assert len(frame) == MAX_FRAME_LENGTH
