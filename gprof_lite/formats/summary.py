"""summary.json: one window in figures, for scripts and for the screen.

Shape (``schema`` 1; fields may be added under the same number)::

    {"schema": 1,
     "window":   {"start": "2026-11-21T07:39:45.000000Z", "end": ..., "start_ns": n, "end_ns": n, "duration_s": x},
     "host":     {...facts as given...},
     "sample_type": "cpu", "unit": "nanoseconds", "total": n, "n_stacks": n,
     "services": [{"service": s, "weight": n, "share": x}, ...],               largest first
     "functions_by_self":  [{"function": s, "kind": k, "weight": n, "share": x}, ...],
     "functions_by_total": [...the same...],
     "sources":  [{"source": s, "state": "ok", "detail": s, "n_samples": n, "covered_s": x, "lost_s": x,
                   "losses": {...}, "n_restarts": n, "cpu_s": x, "peak_rss_bytes": n, "error_tail": s}, ...],
     "losses":   {"counts": {kind: n}, "examples": {kind: [text, ...]}},       of all sources and profiles together
     "agent":    {...health as given...}}

``share`` is of ``total``, 0 to 1; weights are in ``unit``; ``kind`` is ``kernel``, ``jit``, ``inlined``, ``python`` or
``native`` and the function's name is without its suffix. ``weight`` of ``functions_by_total`` counts a stack once for
each function in it, however deep it recurses.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from gprof_lite.formats.document import losses_document
from gprof_lite.model.coverage import Coverage, SourceCoverage
from gprof_lite.model.frame import INLINED, JIT, KERNEL, PYTHON, frame_kind
from gprof_lite.model.losses import LossCounter
from gprof_lite.model.profile import SERVICE, Profile, SampleType, Window

SCHEMA: Final = 1
N_TOP: Final = 20


def summary_document(
    window: Window,
    profiles: Sequence[Profile],
    coverage: Coverage,
    *,
    host: Mapping[str, Any],
    agent: Mapping[str, Any],
    sample_type: SampleType = SampleType.CPU,
    n_top: int = N_TOP,
) -> dict[str, Any]:
    """The document, ready for ``json.dumps``.

    Args:
        profiles: one per service; those of another sample type than ``sample_type`` are left out.
        host, agent: facts and health as plain JSON values, taken over as they are.
        n_top: how many services and functions to name.

    Each stack's root frame is the comm of its process, which is no function: it is in no list of functions unless it
    is all there is.
    """
    chosen = [profile for profile in profiles if profile.sample_type is sample_type]
    total = sum(profile.total for profile in chosen)
    by_self, by_total = _by_function(chosen)
    return {
        "schema": SCHEMA,
        "window": _window(window),
        "host": dict(host),
        "sample_type": sample_type.value,
        "unit": sample_type.unit,
        "total": total,
        "n_stacks": sum(len(profile.stacks) for profile in chosen),
        "services": [
            {"service": service, **_weighed(weight, total)} for service, weight in _top(_by_service(chosen), n_top)
        ],
        "functions_by_self": [_function(frame, weight, total) for frame, weight in _top(by_self, n_top)],
        "functions_by_total": [_function(frame, weight, total) for frame, weight in _top(by_total, n_top)],
        "sources": [_source(source) for source in coverage.sources],
        "losses": _losses(coverage, chosen),
        "agent": dict(agent),
    }


def _window(window: Window) -> dict[str, Any]:
    return {
        "start": _utc_text(window.start_ns),
        "end": _utc_text(window.end_ns),
        "start_ns": window.start_ns,
        "end_ns": window.end_ns,
        "duration_s": round(window.duration_s, 6),
    }


def _utc_text(time_ns: int) -> str:
    # Whole seconds and the rest apart: a float of nanoseconds since 1970 is exact to some 200 ns only.
    seconds, rest_ns = divmod(time_ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest_ns // 1000:06d}Z"


def _by_service(profiles: Iterable[Profile]) -> dict[str, int]:
    weights: dict[str, int] = {}
    for profile in profiles:
        service = profile.labels.get(SERVICE, "")
        weights[service] = weights.get(service, 0) + profile.total
    return weights


def _by_function(profiles: Iterable[Profile]) -> tuple[dict[str, int], dict[str, int]]:
    """Weights by frame: as the leaf, and anywhere."""
    by_self: dict[str, int] = {}
    by_total: dict[str, int] = {}
    for profile in profiles:
        for stack, weight in profile.stacks.items():
            functions = stack[1:] or stack
            by_self[functions[-1]] = by_self.get(functions[-1], 0) + weight
            for frame in set(functions):
                by_total[frame] = by_total.get(frame, 0) + weight
    return by_self, by_total


def _top(weights: Mapping[str, int], n_top: int) -> list[tuple[str, int]]:
    """The largest first; equal ones by name, so that equal windows give equal documents."""
    return sorted(weights.items(), key=lambda item: (-item[1], item[0]))[:n_top]


def _function(frame: str, weight: int, total: int) -> dict[str, Any]:
    kind = frame_kind(frame)
    name = frame.removesuffix(_SUFFIXES.get(kind, ""))
    return {"function": name, "kind": kind, **_weighed(weight, total)}


_SUFFIXES: Final = {"kernel": KERNEL, "jit": JIT, "inlined": INLINED, "python": PYTHON}


def _weighed(weight: int, total: int) -> dict[str, Any]:
    return {"weight": weight, "share": round(weight / total, 6) if total else 0.0}


def _source(source: SourceCoverage) -> dict[str, Any]:
    return {
        "source": source.source,
        "state": source.state.value,
        "detail": source.detail,
        "n_samples": source.n_samples,
        "covered_s": round(source.covered_s, 3),
        "lost_s": round(source.lost_s, 3),
        "losses": losses_document(source.losses),
        "n_restarts": source.n_restarts,
        "cpu_s": round(source.cpu_s, 3),
        "peak_rss_bytes": source.peak_rss_bytes,
        "error_tail": source.error_tail,
    }


def _losses(coverage: Coverage, profiles: Iterable[Profile]) -> dict[str, Any]:
    losses = LossCounter()
    losses.add(coverage.losses)
    for profile in profiles:
        losses.add(profile.losses)
    return losses_document(losses.seal())
