from __future__ import annotations

from pathlib import Path

import pytest

from gprof_lite.host.facts import read_host_facts, read_kernel_limits

HIDDEN = "0000000000000000 A fixed_percpu_data\n0000000000000000 T _stext\n"
SHOWN = "0000000000000000 A fixed_percpu_data\nffffffff81000000 T _stext\n"


def fake_kernel(proc: Path, kallsyms: str, **values: str) -> Path:
    (proc / "sys/kernel").mkdir(parents=True)
    for name, value in values.items():
        (proc / "sys/kernel" / name).write_text(value)
    (proc / "kallsyms").write_text(kallsyms)
    return proc


def test_host_facts_are_those_of_this_host() -> None:
    facts = read_host_facts()

    assert facts.hostname
    assert facts.n_cpus >= 1
    assert facts.memory_bytes > 1 << 20


def test_limits_are_read_as_numbers(tmp_path: Path) -> None:
    limits = read_kernel_limits(fake_kernel(tmp_path, SHOWN, perf_event_paranoid="-1\n", kptr_restrict="0\n"))

    assert (limits.perf_event_paranoid, limits.kptr_restrict, limits.ptrace_scope) == (-1, 0, None)
    assert limits.why_no_kernel_symbols == ""


@pytest.mark.parametrize(
    ("restrict", "words"), [pytest.param("2\n", "sysctl", id="for all"), pytest.param("1\n", "CAP_SYSLOG", id="for us")]
)
def test_hidden_kernel_symbols_are_explained(tmp_path: Path, restrict: str, words: str) -> None:
    limits = read_kernel_limits(fake_kernel(tmp_path, HIDDEN, kptr_restrict=restrict))

    assert words in limits.why_no_kernel_symbols


def test_a_host_that_tells_nothing_is_no_error(tmp_path: Path) -> None:
    limits = read_kernel_limits(tmp_path)

    assert limits.perf_event_paranoid is None
    assert not limits.kernel_symbols_visible
