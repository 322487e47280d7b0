"""bench/supervise.py, shortened: nothing adds up over many children, and the bench can see it when something does."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCH = Path(__file__).parents[3] / "bench" / "supervise.py"


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_supervise", BENCH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("count", "use_cgroup"), [pytest.param(1000, True, id="leaf"), pytest.param(300, False, id="walk")]
)
def test_ours__leaves_nothing(bench: ModuleType, count: int, use_cgroup: bool) -> None:
    measurement = bench.measure_in_fresh_process("ours", count, use_cgroup)
    assert bench.is_within_limits(measurement), measurement


def test_naive__is_seen_to_leak(bench: ModuleType) -> None:
    measurement = bench.measure_in_fresh_process("naive, pipes", 200, use_cgroup=False)
    assert not bench.is_within_limits(measurement)
    assert measurement.after.descriptors - measurement.before.descriptors == 2 * 200
    assert measurement.after.rss_bytes - measurement.before.rss_bytes > 500_000


def test_table__is_printed() -> None:
    done = subprocess.run([sys.executable, BENCH, "20"], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    for row in ("descriptors", "threads", "zombies", "scratch files", "rss bytes", "ms per child", "nothing is left"):
        assert row in done.stdout
