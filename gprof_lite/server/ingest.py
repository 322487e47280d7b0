"""``POST /ingest``: one profile in folded text, in lines, or as pprof, as older SDKs send it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.http import parse_options_header
from werkzeug.sansio.multipart import Data, Epilogue, Field, File, MultipartDecoder

from gprof_lite.model.losses import Losses
from gprof_lite.server.folded import parse_folded
from gprof_lite.server.ingest_name import IngestName, parse_name
from gprof_lite.server.moment import parse_moment
from gprof_lite.server.pprof_profiles import PprofSource, read_pprof
from gprof_lite.server.refusal import invalid
from gprof_lite.server.store import NewProfile

DEFAULT_SAMPLE_RATE_HZ: Final = 100
MAX_SAMPLE_RATE_HZ: Final = 1_000_000_000
# Formats that Pyroscope reads and this server does not. Any other unknown one is folded text, as there.
_OTHER_FORMATS: Final = ("trie", "tree", "jfr", "speedscope")
_MAX_PARTS: Final = 16


@dataclass(frozen=True, slots=True)
class Ingested:
    """What a request holds, and what of it cannot be used."""

    profiles: tuple[NewProfile, ...]
    losses: Losses = field(default_factory=Losses)


def read_ingest(parameters: Mapping[str, str], content_type: str, body: bytes, now_ns: int) -> Ingested:
    """Read a request.

    Raises:
        Refusal: 4xx, a parameter or the body cannot be used; or lines were dropped and nothing was left.
    """
    name = parse_name(parameters.get("name", ""))
    time_ns = parse_moment(parameters["from"], now_ns) if parameters.get("from") else now_ns
    until_ns = parse_moment(parameters["until"], now_ns) if parameters.get("until") else time_ns
    if until_ns < time_ns:
        raise invalid("'until' is before 'from'")
    kind, options = parse_options_header(content_type)
    wanted = parameters.get("format", "")
    if wanted in _OTHER_FORMATS:
        raise invalid(f"format {wanted!r} is not supported; send folded, lines or pprof")
    if wanted == "pprof" or kind == "multipart/form-data":
        parts = _split_parts(body, options.get("boundary", "")) if kind == "multipart/form-data" else {"profile": body}
        return _read_pprof(name, parts, time_ns)
    return _read_text(name, parameters, body, time_ns, until_ns - time_ns)


def _read_text(
    name: IngestName, parameters: Mapping[str, str], body: bytes, time_ns: int, duration_ns: int
) -> Ingested:
    series, is_samples = name.counted_series()
    period = 1_000_000_000 // _sample_rate_hz(parameters) if is_samples else 1
    folded = parse_folded(body, has_counts=parameters.get("format") != "lines")
    if not folded.stacks:
        if folded.losses.total:
            raise invalid(f"no line could be used: {describe_losses(folded.losses)}")
        return Ingested(())
    stacks = {stack: count * period for stack, count in folded.stacks.items()}
    return Ingested((NewProfile(series, time_ns, duration_ns, stacks),), folded.losses)


def _sample_rate_hz(parameters: Mapping[str, str]) -> int:
    text = parameters.get("sampleRate") or str(DEFAULT_SAMPLE_RATE_HZ)
    if not (text.isascii() and text.isdigit() and len(text) <= 10 and 1 <= int(text) <= MAX_SAMPLE_RATE_HZ):
        raise invalid(f"sampleRate {text[:40]!r} is not a whole number from 1 to {MAX_SAMPLE_RATE_HZ}")
    return int(text)


def _read_pprof(name: IngestName, parts: Mapping[str, bytes], time_ns: int) -> Ingested:
    if "prev_profile" in parts:
        raise invalid("the form field prev_profile is of an old client version that is not supported")
    if not parts.get("profile"):
        raise invalid("no profile: the request body, or the form field 'profile', is empty")
    titles = _display_names(parts.get("sample_type_config"))

    def labels(sample_types: Iterable[str]) -> tuple[str, tuple[tuple[str, str], ...]]:
        metric = _metric_name([titles.get(sample_type, sample_type) for sample_type in sample_types])
        return metric, name.checked_labels(name.application, metric)

    result = read_pprof(PprofSource(parts["profile"], labels, fallback_time_ns=time_ns))
    return Ingested(result.profiles, result.losses)


def _metric_name(sample_types: list[str]) -> str:
    """The ``__name__`` of a pprof that comes without one. Source: what Pyroscope derives from its sample types."""
    if "wall" in sample_types:
        return "wall"
    for sample_type in sample_types:
        if "cpu" in sample_type:
            return "process_cpu"
        if "alloc_" in sample_type or "inuse_" in sample_type or sample_type in ("space", "objects"):
            return "memory"
        for word, metric in (("mutex_", "mutex"), ("block_", "block"), ("goroutines", "goroutines")):
            if word in sample_type:
                return metric
    return sample_types[-1].replace("-", "_") if sample_types else ""


def _display_names(config: bytes | None) -> dict[str, str]:
    """Sample type -> its name to show, from the form field ``sample_type_config`` (JSON)."""
    if not config:
        return {}
    try:
        document = json.loads(config)
        return {
            str(sample_type): str(entry["display-name"])
            for sample_type, entry in document.items()
            if entry.get("display-name")
        }
    except (ValueError, AttributeError, TypeError, RecursionError) as exc:
        raise invalid('sample_type_config must be JSON such as {"cpu": {"units": "samples"}}') from exc


def _split_parts(body: bytes, boundary: str) -> dict[str, bytes]:
    """The fields of a multipart form by name; of two with one name, the last."""
    if not boundary:
        raise invalid("the multipart form names no boundary")
    decoder = MultipartDecoder(boundary.encode(errors="replace"), len(body) + 1, max_parts=_MAX_PARTS)
    parts: dict[str, bytearray] = {}
    current = bytearray()
    try:
        decoder.receive_data(body)
        decoder.receive_data(None)
        while not isinstance(event := decoder.next_event(), Epilogue):
            if isinstance(event, (Field, File)):
                current = parts[event.name] = bytearray()
            elif isinstance(event, Data):
                current += event.data
    # AttributeError: werkzeug takes for granted that a line break follows the headers of a part.
    except (ValueError, AttributeError, RequestEntityTooLarge) as exc:
        raise invalid(f"the multipart form cannot be read: {exc}") from exc
    return {name: bytes(content) for name, content in parts.items()}


def describe_losses(losses: Losses) -> str:
    """Losses as words for the answer: ``3 lines_without_count (for example 'main;a')``."""
    return ", ".join(
        f"{count} {kind}" + "".join(f" (for example {example!r})" for example in losses.examples.get(kind, ())[:1])
        for kind, count in losses.counts.items()
    )
