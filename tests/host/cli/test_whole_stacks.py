"""``gprof-lite leaks`` on leaks in programs without frame pointers: it names the function that leaks."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from tests.host.cli.test_leaks import DEBUG, findings
from tests.leak_targets import StartLeak

C: Final = "native-no-frame-pointers"
CXX: Final = "cxx-no-frame-pointers"
RUST: Final = "rust-no-frame-pointers"
RUST_KINDS: Final = {"rust_box_leak": "site_box_leak", "rust_rc_cycle": "site_rc_cycle", "rust_vec": "site_rust_vec"}
# Kind of leak, program, function.
LEAKS: Final = (
    *((kind, C, f"site_{kind}") for kind in ("malloc", "calloc", "memalign", "strdup", "asprintf", "wrapper")),
    *((kind, C, f"site_{kind}") for kind in ("failing_realloc", "mmap", "threads", "thread_churn", "dlopen")),
    *((kind, CXX, f"site_{kind}") for kind in ("new", "new_array", "shared_cycle", "map_growth", "exception")),
    *((kind, CXX, f"site_{kind}") for kind in ("vector_growth", "unordered_map_growth", "deque_growth")),
    *((kind, RUST, site) for kind, site in RUST_KINDS.items()),
)


def test_the_function_that_leaks_is_named_without_frame_pointers(start_leak: StartLeak, tmp_path: Path) -> None:
    # GIVEN programs without frame pointers, each of which leaks through one function
    pids = {start_leak(kind, "1MB/s", program=program).pid: (kind, site) for kind, program, site in LEAKS}

    # WHEN they are watched
    arguments = [argument for pid in pids for argument in ("--pid", str(pid))]
    found = findings(*arguments, "-d", "25s", *DEBUG, directory=tmp_path)

    # THEN each function is named, and its stack goes on to the root
    assert {finding["pid"] for finding in found} >= pids.keys()
    stacks = {
        finding["pid"]: leaking_stack(finding, pids[finding["pid"]][1]) for finding in found if finding["pid"] in pids
    }
    assert [kind for pid, (kind, _site) in pids.items() if not stacks.get(pid)] == []
    assert [stacks[pid] for pid in pids if not is_whole(stacks[pid])] == []


def leaking_stack(finding: dict[str, Any], site: str) -> list[str]:
    """The frames of the stack that is accused and has the function."""
    frames = (stack["frames"] for stack in finding["stacks"] if stack["leaking"])
    return next((found for found in frames if any(site in frame for frame in found)), [])


def is_whole(frames: list[str]) -> bool:
    return any(name in frame for frame in frames for name in ("_start", "clone"))
