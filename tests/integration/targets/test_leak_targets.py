"""The labelled leak programs do what their label says: each runs for some seconds and gives an account of itself.

All run once, several at a time, in one fixture; the tests look at what they said.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.targets.leaks.build import ToolMissing
from tests.targets.leaks.catalogue import TARGETS, Target, find_target

FRONT = Path(__file__).resolve().parents[2] / "targets" / "memory_leak_simulator"
N_AT_ONCE = 24
RATE = 2e6
# What these do happens late: they run until it has happened.
LATE_S = {"late_start": 15.0, "exec": 15.0, "forked_later": 15.0, "dlopen": 6.0, "rare_steps": 6.0}
USUAL_S = 3.5
WITHOUT_RATE = {"descriptors", "stuck_threads", "python_threads"}
# The leak is not in the account of the process's own anonymous memory, or other things are in it too.
MOVING = {
    *("forked_child", "forked_later", "descriptors", "stuck_threads", "python_threads", "recycled"),
    *("noisy", "sawtooth_leak", "beside_cache", "threads", "partial_rare"),
}
KINDS = sorted({target.kind: target for target in reversed(TARGETS)}.values(), key=lambda target: target.name)
TALKING = [target for target in KINDS if target.program != "stress"]
NATIVE = {"c", "c++", "rust"}


def duration_of(target: Target) -> float:
    return LATE_S.get(target.kind, USUAL_S)


def run(target: Target) -> list[dict[str, Any]] | str:
    """Everything a target said, or why it could not be started."""
    try:
        argv, environment = target.command(duration_of(target), rate=f"{RATE:.0f}")
    except ToolMissing as missing:
        return str(missing)
    done = subprocess.run(
        argv, env={**os.environ, **environment}, stdout=subprocess.PIPE, timeout=60, text=True, check=True
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def accounts() -> dict[str, list[dict[str, Any]] | str]:
    """What every kind said, by kind."""
    with ThreadPoolExecutor(N_AT_ONCE) as pool:
        return dict(zip((target.kind for target in TALKING), pool.map(run, TALKING), strict=True))


def account_of(target: Target, accounts: dict[str, list[dict[str, Any]] | str]) -> list[dict[str, Any]]:
    said = accounts[target.kind]
    if isinstance(said, str):
        pytest.skip(f"{said} is not here")
    return said


@pytest.mark.parametrize("target", TALKING, ids=lambda target: target.kind)
def test_a_target_says_when_it_works_and_what_it_did(
    target: Target, accounts: dict[str, list[dict[str, Any]] | str]
) -> None:
    said = account_of(target, accounts)
    assert said[0]["ready"] is True
    assert said[-1]["kind"] == target.kind
    assert said[-1]["leaks"] is target.leaking
    assert said[-1]["work"] > 0
    assert 0 < said[-1]["cpu_s"] < duration_of(target)


@pytest.mark.parametrize(
    "target", [t for t in TALKING if t.leaking and t.kind not in WITHOUT_RATE], ids=lambda target: target.kind
)
def test_a_leaking_kind_leaks_at_its_rate(target: Target, accounts: dict[str, list[dict[str, Any]] | str]) -> None:
    truth = account_of(target, accounts)[-1]
    n_seconds = truth["wall_s"]
    if target.kind == "late_start":
        n_seconds -= 12
    if target.kind == "rare_steps":
        n_seconds = 12  # one step's worth
    # Starting takes its time, and the last block is not due yet; bursts make up for their pauses.
    assert RATE * n_seconds * 0.75 - 1e6 < truth["leaked_bytes"] < RATE * n_seconds * 1.02 + 1e6


@pytest.mark.parametrize(
    "target",
    [t for t in TALKING if t.leaking and t.language in {*NATIVE, "python"} and t.kind not in MOVING],
    ids=lambda target: target.kind,
)
def test_what_leaks_is_resident(target: Target, accounts: dict[str, list[dict[str, Any]] | str]) -> None:
    steady = {"c": "steady", "c++": "steady", "rust": "rust_steady", "python": "python_steady"}[target.language]
    before = account_of(find_target(steady), accounts)[-1]["anon_bytes"]
    truth = account_of(target, accounts)[-1]
    grown = truth["anon_bytes"] - before
    # Some of it lies where the heap had room.
    assert 0.8 * truth["leaked_bytes"] - 2.5e6 < grown < 1.6 * truth["leaked_bytes"] + 2e6


def test_a_leak_into_freed_heap_is_not_resident(accounts: dict[str, list[dict[str, Any]] | str]) -> None:
    truth = account_of(find_target("recycled"), accounts)[-1]
    assert truth["leaked_bytes"] > 5e6
    assert truth["anon_bytes"] < 106e6  # 96 KiB blocks of 1,008 bytes, and the background's


@pytest.mark.parametrize("target", [t for t in TALKING if not t.leaking], ids=lambda target: target.kind)
def test_a_healthy_kind_leaks_nothing(target: Target, accounts: dict[str, list[dict[str, Any]] | str]) -> None:
    truth = account_of(target, accounts)[-1]
    assert truth["leaked_bytes"] == 0
    assert truth["held_bytes"] <= 90 * 1024 * 1024


def test_leaked_descriptors_are_counted(accounts: dict[str, list[dict[str, Any]] | str]) -> None:
    assert account_of(find_target("descriptors"), accounts)[-1]["leaked_blocks"] >= 9


@pytest.mark.parametrize(
    "program", sorted({t.program for t in TARGETS if t.language in {"c", "c++"} and t.program != "stress"})
)
def test_each_site_is_a_function_of_its_own(program: str) -> None:
    """Compilers fold equal functions into one; a label would then name a function that is in no stack."""
    nm = shutil.which("nm")
    if not nm:
        pytest.skip("nm is not here")
    targets = [target for target in TARGETS if target.program == program and target.leaking]
    files = [targets[0].command(1.0)[0][0]]
    files += [str(Path(files[0]).with_name("plugin.so"))] if Path(files[0]).with_name("plugin.so").exists() else []
    listing = subprocess.run([nm, "-C", *files], stdout=subprocess.PIPE, text=True, check=True).stdout
    symbols = [line.split(maxsplit=2) for line in listing.splitlines() if " t " in line.lower()]
    by_name = {name.rpartition("::")[2].partition("(")[0]: address for address, _, name in symbols}
    sites = [site for target in targets for site in target.sites]
    assert [site for site in sites if site not in by_name] == []
    assert len({by_name[site] for site in sites}) == len(set(sites))


def test_kinds_of_the_programs_are_those_of_the_catalogue() -> None:
    for program in ("native", "cxx"):
        argv, _ = next(target for target in TARGETS if target.program == program).command(1.0)
        listing = subprocess.run([argv[0], "--list"], stdout=subprocess.PIPE, text=True, check=True).stdout
        labels = {line.split()[0]: line.split()[1] == "leaks" for line in listing.splitlines()}
        catalogued = {t.kind: t.leaking for t in TARGETS if t.program == program}
        assert labels == catalogued


@pytest.mark.parametrize(
    ("options", "words"),
    [
        pytest.param(("--kind", "nothing"), "no such kind", id="kind"),
        pytest.param(("--kind", "malloc", "--leak-rate", "fast"), "like 10MB/s", id="rate"),
        pytest.param(("--kind", "malloc", "--leak-rate", "1GB/s"), "more than 2 GB", id="too much"),
        pytest.param(("--kind", "go_slice", "--leak-rate", "1GB/s"), "more than 2 GB", id="too much, Go"),
        pytest.param(("--kind", "python_dict", "--leak-rate", "1GB/s"), "more than 2 GB", id="too much, Python"),
        pytest.param((), "--kind is missing", id="nothing asked"),
    ],
)
def test_wrong_use_is_refused_in_words(options: tuple[str, ...], words: str) -> None:
    done = subprocess.run([sys.executable, FRONT, *options], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert words in done.stderr


@pytest.mark.parametrize(
    "kind", ["malloc", "forked_child", "new", "python_dict", "java_list", "go_slice", "node_array"]
)
def test_sigterm_ends_a_target_with_its_account(kind: str) -> None:
    try:
        argv, environment = find_target(kind).command(60.0)
    except ToolMissing as missing:
        pytest.skip(f"{missing} is not here")
    with subprocess.Popen(argv, env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert json.loads(process.stdout.readline())["ready"]
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=20)
    assert json.loads(output.splitlines()[-1])["kind"] == kind


@pytest.mark.parametrize("kind", ["malloc", "forked_child", "python_dict", "java_list", "go_slice", "node_array"])
def test_a_target_dies_with_its_parent(kind: str) -> None:
    # GIVEN a target whose parent is a process of its own
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"import subprocess; subprocess.run(['{sys.executable}', '{FRONT}', '--kind', '{kind}'])",
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert parent.stdout
        line = parent.stdout.readline()
        if not line:
            pytest.skip("its toolchain is not here")
        pid = json.loads(line)["pid"]
        # WHEN the parent is killed
        parent.kill()
        # THEN the target is gone soon
        give_up_at = time.monotonic() + 15
        while is_alive(pid) and time.monotonic() < give_up_at:
            time.sleep(0.05)
        assert not is_alive(pid)
    finally:
        parent.kill()
        parent.wait()
        parent.stdout.close()


def is_alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in {"Z", "X"}
