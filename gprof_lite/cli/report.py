"""The summary of a recording as text for a terminal: who used the CPU, what was not seen, where the files are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

N_ROWS: Final = 8
NAME_WIDTH: Final = 60


def format_report(document: Mapping[str, Any], directory: Path) -> str:
    """Text of several lines. ``document``: see ``gprof_lite.formats.summary``."""
    return "\n".join(_lines(document, directory))


def _lines(document: Mapping[str, Any], directory: Path) -> Iterator[str]:
    window_s = document["window"]["duration_s"]
    total_s = document["total"] / 1e9
    n_cpus = document["host"]["n_cpus"]
    n_samples = max((source["n_samples"] for source in document["sources"]), default=0)
    yield (
        f"{document['host']['hostname']}: {total_s:.2f} s of CPU time in {window_s:.1f} s "
        f"({100 * total_s / (window_s * n_cpus):.0f} % of {n_cpus} CPUs), {n_samples:,} samples"
    )
    yield from _table("services", document["services"], "service")
    yield from _table("functions, by their own time", document["functions_by_self"], "function")
    yield from _table("functions, with all they call", document["functions_by_total"], "function")
    yield ""
    yield "sources"
    for source in document["sources"]:
        yield from _source(source)
    yield ""
    yield from _losses(document["losses"]["counts"])
    agent = document["agent"]
    yield (
        f"the recording itself: {agent['rss_bytes'] / 1e6:.0f} MB and {agent['cpu_percent']:.1f} % of a CPU here, "
        f"{agent['children_cpu_s']:.2f} s of CPU in the profilers"
    )
    yield f"files: {directory}/flamegraph.html (open it in a browser), cpu.collapsed, cpu.pb.gz, summary.json"


def _table(title: str, rows: Iterable[Mapping[str, Any]], name_key: str) -> Iterator[str]:
    rows = list(rows)[:N_ROWS]
    if not rows:
        return
    yield ""
    yield f"{title:<{NAME_WIDTH}} {'CPU':>9} {'share':>7}"
    for row in rows:
        kind = row.get("kind", "native")
        name = row[name_key] + ("" if kind == "native" else f"  [{kind}]")
        yield f"  {_shortened(name):<{NAME_WIDTH - 2}} {row['weight'] / 1e9:>7.2f} s {100 * row['share']:>5.1f} %"


def _shortened(name: str) -> str:
    width = NAME_WIDTH - 2
    # The end tells more of a C++ or Python name than its middle.
    return name if len(name) <= width else name[: width // 2 - 1] + "…" + name[-(width // 2) :]


def _source(source: Mapping[str, Any]) -> Iterator[str]:
    seen = f"{source['covered_s']:.1f} s seen"
    if source["lost_s"] >= 0.005:
        seen += f", {source['lost_s']:.2f} s lost"
    yield f"  {source['source']:<8} {source['state']:<9} {source['n_samples']:>7,} samples, {seen}"
    if source["detail"]:
        yield f"  {'':<18} {source['detail']}"
    if source["state"] == "failed" and source["error_tail"]:
        yield f"  {'':<18} it said: {source['error_tail'].strip().splitlines()[-1]}"


def _losses(counts: Mapping[str, int]) -> Iterator[str]:
    if not counts:
        yield "nothing was lost"
        return
    yield "lost: " + ", ".join(f"{n:,} {kind.replace('_', ' ')}" for kind, n in sorted(counts.items()))
