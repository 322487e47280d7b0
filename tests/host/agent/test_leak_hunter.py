"""The agent's second main job, end to end: a suspect is found by its growth, followed by itself, and delivered."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import requests

from gprof_lite.formats.collapsed import parse_collapsed
from gprof_lite.model.profile import SampleType
from tests.leak_targets import StartLeak
from tests.running_agent import PATIENCE_S, RunningAgent, free_port, run_command

INUSE = "memory:inuse_space:bytes:space:bytes"


def wait_for(what: Callable[[], Any]) -> Any:
    """What is there at last."""
    give_up_at = time.monotonic() + PATIENCE_S
    while not (found := what()):
        assert time.monotonic() < give_up_at, "nothing came"
        time.sleep(0.2)
    return found


def events_of(path: Path) -> list[dict[str, Any]]:
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines]


def test_a_suspect_is_followed_by_itself_and_all_ways_out_show_it(
    start_agent: Callable[..., RunningAgent], start_leak: StartLeak, tmp_path: Path
) -> None:
    # GIVEN a program that leaks, and an agent that looks every second and suspects early
    target = start_leak("malloc", "10MB/s")
    metrics_port = free_port()
    agent = start_agent(
        "--embedded-server",
        *("--leak-rss-check-interval", "1s", "--leak-rss-growth", "20MB", "--leak-target-duration", "12s"),
        *("--leak-targeted-budget", "20", "--leak-growth-budget", "20"),
        *("--metrics-listen", f"127.0.0.1:{metrics_port}"),
        *("--events-output", str(tmp_path / "events.jsonl")),
    )

    # THEN it is judged, in words on the screen
    verdict = wait_for(lambda: [line for line in agent.lines if f"process {target.pid}" in line and "leaks" in line])
    assert "leaks memory" in verdict[0]

    # AND its stacks are on the server, by the line that leaks
    def names() -> list[str]:
        query = {"query": INUSE + "{}", "from": "now-10m", "until": "now", "format": "json"}
        answer = requests.get(f"{agent.url}/pyroscope/render", params=query, timeout=10)
        return list(answer.json()["flamebearer"]["names"]) if answer.ok else []

    assert wait_for(lambda: [name for name in names() if name.startswith("site_malloc")])

    # AND the growth and the judgement are events
    events = events_of(tmp_path / "events.jsonl")
    growth = [event for event in events if event["operation"] == "rss_growth" and event["process"]["pid"] == target.pid]
    assert growth
    assert growth[0]["type"] == "memory_pressure"
    assert growth[0]["rss_growth"] >= 256
    judged = [event for event in events if event["operation"] == "judged" and event["process"]["pid"] == target.pid]
    assert judged[0]["labels"]["verdict"] == "leak"
    assert "site_malloc" in judged[0]["labels"]["stack"]

    # AND metrics
    text = requests.get(f"http://127.0.0.1:{metrics_port}/metrics", timeout=10).text
    assert f'process="memory_leak_sim:{target.pid}"' in text
    assert "memory_leak_hunter_rss_growth_detected_total" in text
    assert "gprof_lite_kernel_symbol_tables 1.0" in text
    assert agent.stop() == 0


def test_an_oom_kill_is_told_with_the_victims_last_minutes(
    start_agent: Callable[..., RunningAgent],
    run_container: Callable[..., Any],
    tmp_path: Path,
) -> None:
    agent = start_agent(
        *("--metrics-listen", "off", "--leak-rss-check-interval", "1s", "--leak-growth-budget", "20"),
        *("--leak-auto-target", "no", "--events-output", str(tmp_path / "events.jsonl")),
    )
    agent.wait_windows(1)

    # WHEN a container meets its limit: tail keeps all it reads
    script = "sleep 4; head -c 300000000 /dev/zero | tail -c 290000000 > /dev/null; sleep 60"
    container = run_container("runc", ("/bin/busybox", "sh", "-c", script), memory_limit=64 << 20)

    def kills() -> list[dict[str, Any]]:
        return [event for event in events_of(tmp_path / "events.jsonl") if event["type"] == "container_oom"]

    (kill, *_) = wait_for(kills)
    assert kill["operation"] == "oom_kill"
    assert kill["process"]["comm"] in ("tail", "busybox")
    assert kill["process"]["start_time_ticks"] > 0
    assert kill["size_bytes"] is None or kill["size_bytes"] > 1 << 20
    assert container.pid != kill["process"]["pid"]
    assert agent.stop() == 0


def test_record_writes_the_memory_of_a_process_beside_its_cpu_time(start_leak: StartLeak, tmp_path: Path) -> None:
    target = start_leak("malloc", "2MB/s")
    options = ("--memory", "--leak-mode", "debug", "--scratch-directory", str(tmp_path / "scratch"))

    ended = run_command("record", "-d", "8s", "-o", "out", "--pid", str(target.pid), *options, directory=tmp_path)

    assert ended.returncode == 0, ended.stderr
    assert f"process {target.pid}" in ended.stdout
    out = tmp_path / "out"
    profile = parse_collapsed((out / "inuse_space.collapsed").read_text().splitlines())
    assert profile.sample_type is SampleType.INUSE_SPACE
    leaking = sum(weight for stack, weight in profile.stacks.items() if "site_malloc" in stack)
    assert leaking > 0.5 * profile.total > 2_000_000
    names = {path.name for path in out.iterdir()}
    assert names >= {"cpu.collapsed", "inuse_space.html", "inuse_space.pb.gz", "alloc_space.html", "findings.json"}
    (finding,) = json.loads((out / "findings.json").read_text())["findings"]
    assert finding["pid"] == target.pid
    summary = json.loads((out / "summary.json").read_text())
    assert {source["source"] for source in summary["sources"]} >= {"perf", "allocations"}


def metrics_of(port: int) -> str:
    return requests.get(f"http://127.0.0.1:{port}/metrics", timeout=10).text


def test_a_hunter_that_is_switched_off_looks_at_nothing(
    start_agent: Callable[..., RunningAgent], start_leak: StartLeak, tmp_path: Path
) -> None:
    # GIVEN a program that leaks, and an agent whose hunter would tell of it within a second
    start_leak("malloc", "10MB/s")
    port = free_port()
    agent = start_agent(
        *("--leak-enabled", "false", "--leak-rss-check-interval", "1s", "--leak-rss-growth-threshold", "1"),
        *("--metrics-listen", f"127.0.0.1:{port}", "--events-output", str(tmp_path / "events.jsonl")),
    )
    agent.wait_windows(2)
    # THEN no event was written, and nothing was watched
    text = metrics_of(port)
    assert "memory_leak_hunter_rss_growth_detected_total 0.0" in text or "rss_growth_detected_total" not in text
    assert events_of(tmp_path / "events.jsonl") == []
    assert agent.stop() == 0


def test_the_agents_settings_bound_its_events(
    start_agent: Callable[..., RunningAgent], start_leak: StartLeak, tmp_path: Path
) -> None:
    # GIVEN three programs that grow all the time, and an agent that may tell one event a second
    for _ in range(3):
        start_leak("malloc", "10MB/s")
    port = free_port()
    agent = start_agent(
        *("--leak-rss-check-interval", "1s", "--leak-rss-growth-threshold", "1", "--leak-growth-budget", "20"),
        *("--leak-auto-target", "false", "--leak-max-events-per-second", "1", "--leak-stack-dedup-window", "0s"),
        *("--metrics-listen", f"127.0.0.1:{port}", "--events-output", str(tmp_path / "events.jsonl")),
    )
    agent.wait_windows(1)
    # THEN what is too much is dropped, and counted by its reason
    dropped = 'memory_leak_hunter_dropped_events_total{reason="rate"}'
    assert wait_for(lambda: [line for line in metrics_of(port).splitlines() if line.startswith(dropped)][:1])
    assert wait_for(lambda: len(events_of(tmp_path / "events.jsonl")) >= 2)
    assert agent.stop() == 0
    assert all(event["operation"] == "rss_growth" for event in events_of(tmp_path / "events.jsonl"))
