"""What works on this host, what does not, why, and the command that mends it. Every check tries the real thing."""

from __future__ import annotations

import os
import resource
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final

from gprof_lite.agent.observation import ObservationOptions
from gprof_lite.agent.unwind_check import MAX_NAMED, cut_processes, try_unwinding
from gprof_lite.clock import Deadline, SystemClock
from gprof_lite.config import OptionValues, options_of
from gprof_lite.delivery.delivery import DeliveryOptions
from gprof_lite.errors import ChildError, GprofLiteError, ProbeError
from gprof_lite.host.facts import read_host_facts, read_kernel_limits
from gprof_lite.lean_requests import requests
from gprof_lite.probes.costs import calibrate
from gprof_lite.probes.support import probe_support
from gprof_lite.profilers.contract import ProfilerContext, SamplingOptions
from gprof_lite.profilers.perf_command import find_perf
from gprof_lite.profilers.perf_event import candidates, choose_event
from gprof_lite.profilers.perf_options import PerfOptions
from gprof_lite.profilers.pyspy_command import ENVIRONMENT, find_pyspy
from gprof_lite.stop import StopToken
from gprof_lite.supervise.output import Discard, Tail
from gprof_lite.supervise.process import start_process_managed
from gprof_lite.supervise.warden_client import Warden
from gprof_lite.supervise.workdir import WorkDirectory
from gprof_lite.unwind.tables import open_unwind_tables

LOW_DESCRIPTORS: Final = 1024
LOW_DISK_BYTES: Final = 1 << 30
SERVER_TIMEOUT_S: Final = 3.0
PYSPY_WITHIN_S: Final = 20.0
LEAST_WHOLE_PERCENT: Final = 90.0


class CheckState(Enum):
    """``fail``: the main job cannot run. ``warn``: it can, with less. ``ok``: all there."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Check:
    """One finding.

    Attributes:
        name: what was looked at.
        found: what was seen.
        why: what it means for profiling; empty when all is well.
        mend: the command or step that mends it; empty when there is nothing to mend.
    """

    name: str
    state: CheckState
    found: str
    why: str = ""
    mend: str = ""


def examine(options: OptionValues, stop: StopToken) -> Iterator[Check]:
    """Look at everything, one check after the other; takes some seconds, most of them for perf's trial.

    A check that cannot be made because one before it failed is left out.
    """
    yield check_system()
    yield check_descriptors()
    own = options_of(options, ObservationOptions)
    with ExitStack() as parts:
        try:
            work = parts.enter_context(WorkDirectory(own.scratch_root))
        except (GprofLiteError, OSError) as exc:
            yield Check("scratch directory", CheckState.FAIL, str(exc), "profilers have nowhere to write", _hint(exc))
            return
        yield check_disk("scratch directory", work.path)
        try:
            warden = parts.enter_context(Warden())
        except GprofLiteError as exc:
            yield Check("supervision", CheckState.FAIL, str(exc), "no profiler can be started", _hint(exc))
            return
        yield check_supervision(warden)
        sampling = options_of(options, SamplingOptions)
        yield check_perf(ProfilerContext(warden, stop, SystemClock(), work, sampling), options_of(options, PerfOptions))
        yield check_unwinding(warden, stop, work)
        if not os.geteuid():
            yield check_whole_stacks()
        yield check_kernel_symbols()
        yield check_pyspy(warden, stop)
        yield from check_probes()
        yield check_allocation_probes(warden, stop)
    delivery = options_of(options, DeliveryOptions)
    yield check_spool(delivery.spool_directory)
    yield check_server(delivery.server)


def check_system() -> Check:
    """The kernel, and who we are."""
    facts = read_host_facts()
    found = f"Linux {facts.kernel} on {facts.machine}, {facts.n_cpus} CPUs, {facts.memory_bytes / 1e9:.0f} GB"
    if os.geteuid() == 0:
        return Check("host", CheckState.OK, found + ", as root")
    return Check(
        "host",
        CheckState.WARN,
        f"{found}, as user {os.geteuid()}",
        "only your own processes can be profiled, if the kernel allows that",
        "sudo gprof-lite doctor",
    )


def check_descriptors() -> Check:
    """How many descriptors we may hold."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    found = f"{soft} may be open"
    if soft >= LOW_DESCRIPTORS:
        return Check("descriptors", CheckState.OK, found)
    return Check("descriptors", CheckState.WARN, found, "few profilers can run at once", f"ulimit -n {LOW_DESCRIPTORS}")


def check_disk(name: str, directory: Path) -> Check:
    """Free space where something is written."""
    free_bytes = shutil.disk_usage(directory).free
    found = f"{directory}, {free_bytes / 1e9:.1f} GB free"
    if free_bytes >= LOW_DISK_BYTES:
        return Check(name, CheckState.OK, found)
    return Check(name, CheckState.WARN, found, "long windows or outages may not fit", f"free some space on {directory}")


def check_supervision(warden: Warden) -> Check:
    """By which means no child outlives us."""
    if warden.has_leaves:
        return Check("supervision", CheckState.OK, "children live in a cgroup of their own, killed as one")
    return Check(
        "supervision",
        CheckState.WARN,
        "no writable cgroup v2",
        "children are found by walking /proc; one that daemonises while agent and warden are both killed may live on",
        "mount -t cgroup2 none /sys/fs/cgroup/unified",
    )


def check_perf(context: ProfilerContext, options: PerfOptions) -> Check:
    """Whether perf yields samples here, and on which event."""
    name = "perf"
    try:
        choice = choose_event(
            find_perf(), context.work.subdirectory("doctor"), context, candidates(options.perf_event, options.idle)
        )
    except GprofLiteError as exc:
        return Check(name, CheckState.FAIL, str(exc), "CPU time of native code cannot be sampled", _hint(exc))
    if choice.event is not None:
        return Check(name, CheckState.OK, str(choice))
    paranoid = read_kernel_limits().perf_event_paranoid
    return Check(
        name,
        CheckState.FAIL,
        str(choice),
        f"CPU time cannot be sampled (kernel.perf_event_paranoid is {paranoid})",
        "run as root, or grant CAP_PERFMON"
        if os.geteuid()
        else "look at `dmesg | tail` and at the container's seccomp",
    )


def check_unwinding(warden: Warden, stop: StopToken, work: WorkDirectory) -> Check:
    """Whether our own sampler works here and makes stacks whole without frame pointers, and what one costs."""
    name = "cpu sampler"
    tables = open_unwind_tables(work.subdirectory("doctor-unwind"), warden, stop)
    try:
        trial = try_unwinding(tables)
    except ProbeError as exc:
        why = "perf samples instead, by frame pointers: stacks of code without them end early"
        return Check(name, CheckState.WARN, str(exc), why, _hint(exc))
    finally:
        tables.close()
    found = (
        f"in the kernel, {trial.whole_percent:.0f} % of stacks whole without frame pointers; a stack of "
        f"{trial.n_frames:.0f} frames costs {trial.walk_us:.1f} us"
    )
    if trial.whole_percent >= LEAST_WHOLE_PERCENT:
        return Check(name, CheckState.OK, found)
    return Check(name, CheckState.WARN, found, "some stacks show only what is nearest to their end")


def check_whole_stacks() -> Check:
    """Of which running processes stacks end early, and why."""
    n_seen, found = cut_processes()
    if not found:
        return Check("whole stacks", CheckState.OK, f"of all {n_seen} processes")
    named = "; ".join(map(str, found[:MAX_NAMED]))
    more = f"; and {len(found) - MAX_NAMED} more" if len(found) > MAX_NAMED else ""
    return Check(
        "whole stacks",
        CheckState.WARN,
        f"not of {len(found)} of {n_seen} processes: {named}{more}",
        "their stacks are followed as far as frame pointers lead",
    )


def check_kernel_symbols() -> Check:
    """Whether kernel functions have names."""
    why = read_kernel_limits().why_no_kernel_symbols
    if not why:
        return Check("kernel symbols", CheckState.OK, "readable")
    return Check(
        "kernel symbols", CheckState.WARN, "hidden", why, "run as root, or: sudo sysctl -w kernel.kptr_restrict=1"
    )


def check_pyspy(warden: Warden, stop: StopToken) -> Check:
    """Whether py-spy can read a Python process: this one."""
    name = "py-spy"
    why = "Python processes show the interpreter's functions, not their own"
    try:
        argv = (find_pyspy(), "dump", "--pid", str(os.getpid()))
        with start_process_managed(
            argv, warden=warden, stop=stop, environment=ENVIRONMENT, stdout=Discard(), stderr=Tail()
        ) as process:
            process.wait(Deadline.after(PYSPY_WITHIN_S))
            result = process.close()
    except (GprofLiteError, ChildError) as exc:
        return Check(name, CheckState.WARN, str(exc), why, _hint(exc))
    if result.returncode == 0:
        return Check(name, CheckState.OK, f"{argv[0]} reads Python processes")
    said = result.stderr_tail.strip().rpartition("\n")[2] or f"exit {result.returncode}"
    return Check(name, CheckState.WARN, said, why, "run as root, or grant CAP_SYS_PTRACE")


def check_probes() -> Iterator[Check]:
    """Which of our BPF programs load here."""
    for probe in probe_support():
        name = f"probe: {probe.name}"
        if probe.works:
            yield Check(name, CheckState.OK, probe.words)
        else:
            yield Check(name, CheckState.WARN, probe.words, "the leak hunter sees less", probe.hint)


def check_allocation_probes(warden: Warden, stop: StopToken) -> Check:
    """Whether the probes on malloc and free see every call of a child of ours, and what a hit costs."""
    name = "allocation probes"
    calibration = calibrate(warden, stop)
    costs = calibration.costs
    ways = "sessions" if calibration.kernel.session_type is not None else "entry and return probes"
    found = (
        f"by {ways}; a malloc that is not followed costs its target {costs.session_ns / 1000:.2f} us, a free "
        f"{costs.free_ns / 1000:.2f} us, a followed block {calibration.sample_ns / 1000:.1f} us more"
    )
    if calibration.verified and not calibration.problem:
        return Check(name, CheckState.OK, found)
    return Check(name, CheckState.WARN, calibration.problem or found, "leaks are judged by growth more than by blocks")


def check_spool(directory: Path) -> Check:
    """Whether windows can wait on disk."""
    existing = next(path for path in (directory, *directory.parents) if path.exists())
    if os.access(existing, os.W_OK | os.X_OK):
        return check_disk("spool", existing)
    return Check(
        "spool",
        CheckState.WARN,
        f"{directory} cannot be written",
        "`gprof-lite run` cannot keep windows while the server is down (`record` needs no spool)",
        "run as root, or choose another one with --spool-directory DIR",
    )


def check_server(url: str) -> Check:
    """Whether somebody takes profiles at the configured address."""
    try:
        answer = requests.get(f"{url}/ready", timeout=SERVER_TIMEOUT_S, allow_redirects=False)
    except requests.RequestException as exc:
        return Check(
            "server",
            CheckState.WARN,
            f"{url} does not answer ({type(exc).__name__})",
            "windows wait in the spool until it does",
            "gprof-lite server, or point --server at the one you have",
        )
    if answer.ok:
        return Check("server", CheckState.OK, f"{url} is ready")
    return Check("server", CheckState.WARN, f"{url} answers {answer.status_code}", "windows wait in the spool")


def _hint(error: BaseException) -> str:
    return str(getattr(error, "hint", ""))
