"""One window into files: what ``record`` does. Needs no server and no spool."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from gprof_lite.agent.health import AgentHealth, HealthMeter
from gprof_lite.agent.hunt import open_hunt
from gprof_lite.agent.investigation import InvestigationResult
from gprof_lite.agent.memory_recording import MemoryRecording
from gprof_lite.agent.observation import Observation, open_observation
from gprof_lite.agent.session import SealedWindow
from gprof_lite.agent.summary import summarize
from gprof_lite.clock import Clock
from gprof_lite.config import OptionValues, duration_s, options_of, path, setting, yes_or_no
from gprof_lite.errors import PrerequisiteError
from gprof_lite.formats.collapsed import format_collapsed
from gprof_lite.formats.findings import findings_document
from gprof_lite.formats.flamegraph import render_flamegraph
from gprof_lite.formats.pprof import encode_pprof
from gprof_lite.merge.profiles import merge_profiles
from gprof_lite.model.coverage import Coverage
from gprof_lite.model.profile import Profile, SampleType
from gprof_lite.profilers.contract import SamplingOptions
from gprof_lite.stop import StopToken

SEAL_WITHIN_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class RecordOptions:
    """What `record` takes beside what every part takes."""

    duration_s: float = setting(
        10.0, read=duration_s(0.5, 3600.0), help="how long to record", flags=("-d",), metavar="DURATION"
    )
    output: Path | None = setting(
        None, read=path(), help="directory for the results [profile-DATE-TIME here]", flags=("-o",), metavar="DIR"
    )
    memory: bool = setting(
        False,
        read=yes_or_no(),
        help="also follow the memory of the processes given by --pid, else of the eight that have most of it",
    )
    json: bool = setting(False, read=yes_or_no(), help="print the summary as JSON")


@dataclass(frozen=True, slots=True)
class Recording:
    """A finished recording.

    Attributes:
        profile: the whole host, all services merged; without stacks when nothing was sampled.
        directory: where the files are.
        memory: with --memory, what came of following some processes.
    """

    sealed: SealedWindow
    profile: Profile
    health: AgentHealth
    directory: Path
    memory: InvestigationResult | None = None


def record(
    options: OptionValues,
    *,
    clock: Clock,
    stop: StopToken,
    abort: StopToken,
    on_tick: Callable[[float], None],
    on_seal: Callable[[], None],
) -> Recording:
    """Observe one window and write its files. A stop ends the window early; what there is by then is written.

    Raises:
        PrerequisiteError: nothing can be observed here, or the directory cannot be written.
    """
    own = options_of(options, RecordOptions)
    directory = _make_directory(own.output, clock)
    with open_observation(
        options, window_s=own.duration_s, clock=clock, stop=stop, abort=abort, on_tick=on_tick
    ) as observation:
        meter = HealthMeter(clock)
        with _memory_beside(own, options, observation, clock, stop, abort) as memory:
            sealed = observation.session.run(own.duration_s, SEAL_WITHIN_S, on_seal)
        health = meter.read(sealed.coverage)
    if memory is not None:
        sealed = replace(sealed, coverage=Coverage((*sealed.coverage.sources, *memory.coverage)))
    profile = whole_host(sealed)
    recording = Recording(sealed, profile, health, directory, memory.result if memory is not None else None)
    _write_files(recording)
    return recording


@contextmanager
def _memory_beside(
    own: RecordOptions, options: OptionValues, observation: Observation, clock: Clock, stop: StopToken, abort: StopToken
) -> Iterator[MemoryRecording | None]:
    """Follows memory on a thread while the caller records CPU; the result is there when the context has ended."""
    if not own.memory:
        yield None
        return
    pids = options_of(options, SamplingOptions).pid
    with open_hunt(
        options,
        warden=observation.warden,
        work=observation.work,
        symbolizer=observation.symbolizer,
        clock=clock,
        stop=abort,
        host=observation.host,
    ) as hunt:
        recording = MemoryRecording(hunt, pids, own.duration_s, stop)
        with recording:
            yield recording


def whole_host(sealed: SealedWindow) -> Profile:
    """All services of a window in one profile."""
    if not sealed.profiles:
        return Profile(SampleType.CPU, sealed.window, {}, losses=sealed.coverage.losses)
    merged = merge_profiles(sealed.profiles)
    return Profile(
        merged.sample_type, merged.window, merged.stacks, merged.period, merged.labels, sealed.coverage.losses
    )


def _make_directory(wanted: Path | None, clock: Clock) -> Path:
    """Made before the recording, so that a directory that cannot be written costs no recording."""
    moment = datetime.fromtimestamp(clock.utc_ns() / 1e9, UTC).astimezone()
    directory = wanted or Path(f"profile-{moment:%Y%m%d-%H%M%S}")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "summary.json").touch()
    except OSError as exc:
        raise PrerequisiteError(
            f"directory {directory}", f"cannot be written: {exc.strerror}", "choose another one with -o DIR"
        ) from exc
    return directory


def _write_files(recording: Recording) -> None:
    profile, directory = recording.profile, recording.directory
    window = profile.window
    facts = (
        ("host", profile.labels.get("host", "")),
        ("from", datetime.fromtimestamp(window.start_ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")),
        ("length", f"{window.duration_s:.1f} s"),
        ("sources", ", ".join(f"{each.source} {each.state.value}" for each in recording.sealed.coverage.sources)),
    )
    with open(directory / "cpu.collapsed", "w", encoding="utf-8") as file:
        file.writelines(line + "\n" for line in format_collapsed(profile))
    (directory / "cpu.pb.gz").write_bytes(encode_pprof(profile))
    (directory / "flamegraph.html").write_text(
        render_flamegraph(profile, title=f"CPU of {profile.labels.get('host', 'this host')}", facts=facts),
        encoding="utf-8",
    )
    if recording.memory is not None:
        _write_memory(recording.memory, recording, facts)
    document = summarize(recording.sealed, recording.health)
    (directory / "summary.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def _write_memory(memory: InvestigationResult, recording: Recording, facts: Sequence[tuple[str, str]]) -> None:
    """inuse_space, alloc_space and fault_space of all followed processes, each as the CPU profile; and the findings."""
    directory = recording.directory
    for sample_type in (SampleType.INUSE_SPACE, SampleType.ALLOC_SPACE, SampleType.FAULT_SPACE):
        of_type = [profile for profile in memory.profiles if profile.sample_type is sample_type]
        if not of_type:
            continue
        profile = merge_profiles(of_type)
        name = sample_type.value
        with open(directory / f"{name}.collapsed", "w", encoding="utf-8") as file:
            file.writelines(line + "\n" for line in format_collapsed(profile))
        (directory / f"{name}.pb.gz").write_bytes(encode_pprof(profile))
        title = f"{_TITLES[sample_type]} on {recording.profile.labels.get('host', 'this host')}"
        (directory / f"{name}.html").write_text(render_flamegraph(profile, title=title, facts=facts), encoding="utf-8")
    document = findings_document(memory.window, memory.findings, memory.coverage)
    (directory / "findings.json").write_text(json.dumps(document, indent=2, allow_nan=False) + "\n", encoding="utf-8")


_TITLES: Final = {
    SampleType.INUSE_SPACE: "Memory allocated and not freed",
    SampleType.ALLOC_SPACE: "Memory allocated",
    SampleType.FAULT_SPACE: "Memory touched for the first time",
}
