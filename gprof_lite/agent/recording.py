"""One window into files: what ``record`` does. Needs no server and no spool."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from gprof_lite.agent.health import AgentHealth, HealthMeter
from gprof_lite.agent.observation import open_observation
from gprof_lite.agent.session import SealedWindow
from gprof_lite.agent.summary import summarize
from gprof_lite.clock import Clock
from gprof_lite.config import OptionValues, duration_s, options_of, path, setting, yes_or_no
from gprof_lite.errors import PrerequisiteError
from gprof_lite.formats.collapsed import format_collapsed
from gprof_lite.formats.flamegraph import render_flamegraph
from gprof_lite.formats.pprof import encode_pprof
from gprof_lite.merge.profiles import merge_profiles
from gprof_lite.model.profile import Profile, SampleType
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
    json: bool = setting(False, read=yes_or_no(), help="print the summary as JSON")


@dataclass(frozen=True, slots=True)
class Recording:
    """A finished recording.

    Attributes:
        profile: the whole host, all services merged; without stacks when nothing was sampled.
        directory: where the files are.
    """

    sealed: SealedWindow
    profile: Profile
    health: AgentHealth
    directory: Path


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
        sealed = observation.session.run(own.duration_s, SEAL_WITHIN_S, on_seal)
        health = meter.read(sealed.coverage)
    profile = whole_host(sealed)
    recording = Recording(sealed, profile, health, directory)
    _write_files(recording)
    return recording


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
    document = summarize(recording.sealed, recording.health)
    (directory / "summary.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
