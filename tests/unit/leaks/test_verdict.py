"""The judge on simulated targets: what leaks is found by its stack, what does not is not called a leak."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from random import Random

import pytest

from gprof_lite.leaks.observation import Judgement, TargetObservation
from gprof_lite.leaks.options import LeakOptions
from gprof_lite.leaks.outstanding import AllocationHistory
from gprof_lite.leaks.series import Series
from gprof_lite.leaks.thresholds import SENSITIVITIES, Thresholds, tuning_of
from gprof_lite.leaks.verdict import judge
from gprof_lite.model.allocation import AllocationKind, AllocationSnapshot, EpochTotals, ProbeHits, StackAllocations
from gprof_lite.model.finding import Verdict
from gprof_lite.model.memory import MemoryLimit
from tests.data.leaks.simulated_heap import (
    MB,
    PID,
    SimulatedHeap,
    Site,
    churn,
    filling_cache,
    leak,
    partial_leak,
    table,
)

THRESHOLDS = Thresholds.of(LeakOptions())
# A leak of one megabyte in five minutes, in bytes per second.
MB_PER_5_MIN = MB / 300
GUILTY = 1


def observe(sites: Sequence[Site], seed: int, bursts: Sequence[tuple[float, float]] = ()) -> TargetObservation:
    """Sites amid everyday traffic and a store at its bound, for a minute."""
    tuning = tuning_of(LeakOptions(), 60.0)
    heap = SimulatedHeap([*sites, churn(), table()], seed, tuning=tuning, bursts=bursts)
    random = Random(seed)
    return TargetObservation(
        pid=PID,
        window_s=60.0,
        private=heap.private(noise=lambda _: random.gauss(0, 8000)),
        allocations=heap.history(),
        can_see_malloc=True,
    )


def flat(at: float = 50.0 * MB) -> Series:
    return Series([float(second) for second in range(61)], [at] * 61)


def line(per_s: float, at: float = 50.0 * MB) -> Series:
    return Series([float(second) for second in range(61)], [at + per_s * second for second in range(61)])


@pytest.mark.parametrize(
    "sites",
    [
        pytest.param([leak(GUILTY, 64, 0.2 * MB_PER_5_MIN)], id="slow, 64 bytes"),
        pytest.param([leak(GUILTY, 64, MB_PER_5_MIN)], id="medium, 64 bytes"),
        pytest.param([leak(GUILTY, 1024, 5 * MB_PER_5_MIN)], id="medium, 1 KiB"),
        pytest.param([leak(GUILTY, 1 << 20, 50 * MB_PER_5_MIN)], id="fast, 1 MiB"),
        pytest.param([leak(GUILTY, 1 << 16, 10.0 * MB)], id="10 MB/s"),
        pytest.param([partial_leak(GUILTY, 200, MB_PER_5_MIN, 0.01)], id="one block in a hundred"),
        pytest.param([Site(GUILTY, 8 * MB, at_s=(5, 20, 35, 50))], id="rare large steps"),
        pytest.param([Site(GUILTY, 1 << 16, at_s=(3, 15, 27, 39, 51), batch=64)], id="batches"),
        pytest.param([Site(GUILTY, 1000, lambda now_s: 50.0 if now_s > 25 else 0.0)], id="begins late"),
        pytest.param([replace(leak(GUILTY, 1 << 18, MB), kind=AllocationKind.MMAP)], id="mmap"),
    ],
)
@pytest.mark.parametrize("seed", [1, 2])
def test_a_leak_is_found_by_its_stack(sites: list[Site], seed: int) -> None:
    judgement = judge(observe(sites, seed), THRESHOLDS)
    assert judgement.verdict is Verdict.LEAK
    assert judgement.probability > 0.5
    assert judgement.stacks[0].stack_id == GUILTY
    assert [stack.stack_id for stack in judgement.stacks if stack.leaking] == [GUILTY]


@pytest.mark.parametrize(
    "sites",
    [
        pytest.param([], id="quiet"),
        pytest.param([table(2, 500, 6_000, 200)], id="store, entries live 30 s"),
        pytest.param([table(2, 500, 12_000, 200)], id="store, entries live 60 s"),
        pytest.param([filling_cache(2, 1000, 1e5, 20, evicts="none")], id="cache full after 20 s"),
        pytest.param([filling_cache(2, 1000, 1e5, 40, evicts="none")], id="cache full after 40 s"),
        pytest.param([filling_cache(2, 500, 5e3, 40, evicts="none")], id="small cache full after 40 s"),
        pytest.param([filling_cache(2, 1000, 1e5, 20, evicts="oldest")], id="LRU full after 20 s"),
        pytest.param([filling_cache(2, 1000, 1e5, 40, evicts="oldest")], id="LRU full after 40 s"),
        pytest.param([filling_cache(2, 1000, 1e5, 40, evicts="random")], id="random eviction, full after 40 s"),
        pytest.param([Site(2, 1000, lambda now_s: 500 * math.exp(-now_s / 8))], id="warm-up"),
        pytest.param([Site(2, 300, lambda now_s: 1000 * math.exp(-now_s / 15))], id="interned strings"),
        pytest.param([Site(2, 50 * MB, at_s=(30,))], id="one large allocation"),
        pytest.param([Site(2, 2000, lambda now_s: 500.0 if 25 < now_s < 30 else 0.0)], id="load step"),
        pytest.param([Site(2, 5 * MB, lifetime_s=lambda *_: 15.5, at_s=(10, 25, 40, 55))], id="reload"),
        pytest.param([Site(2, 2000, lambda _: 300.0, lambda random, _: 2 + 3 * random.random())], id="queue"),
    ],
)
@pytest.mark.parametrize("seed", [1, 2])
def test_what_is_bounded_is_no_leak(sites: list[Site], seed: int) -> None:
    judgement = judge(observe(sites, seed), THRESHOLDS)
    assert judgement.verdict not in (Verdict.LEAK, Verdict.UNKNOWN)
    assert judgement.probability <= 0.3
    assert not any(stack.leaking for stack in judgement.stacks)


def test_a_leak_into_freed_heap_is_found_although_the_process_does_not_grow() -> None:
    observation = replace(observe([leak(GUILTY, 64, 5 * MB_PER_5_MIN)], 1), private=flat())
    judgement = judge(observation, THRESHOLDS)
    assert judgement.verdict is Verdict.LEAK
    assert judgement.growth_bytes_per_s == 0.0


def test_growth_that_no_stack_explains_is_retention() -> None:
    observation = replace(observe([], 1), private=line(50_000.0))
    judgement = judge(observation, THRESHOLDS)
    assert judgement.verdict is Verdict.RETENTION
    assert "allocator keeps it" in " ".join(judgement.evidence)


def test_growth_of_a_process_whose_allocations_cannot_be_seen_may_be_a_leak() -> None:
    judgement = judge(TargetObservation(PID, 60.0, line(50_000.0)), THRESHOLDS)
    assert judgement.verdict is Verdict.LEAK
    assert 0.5 <= judgement.probability <= 0.8
    assert "stands on the growth alone" in " ".join(judgement.evidence)


def pieces(duty: float) -> tuple[tuple[float, float], ...]:
    """A burst somewhere in each sixteenth of a minute."""
    starts_s = [3.75 * (index + (1 - duty) * (index * 0.618 % 1.0)) for index in range(16)]
    return tuple((start_s, start_s + 3.75 * duty) for start_s in starts_s)


BURSTS = pieces(0.3)


def test_in_bursts_a_leak_into_freed_heap_is_found_although_the_process_does_not_grow() -> None:
    observation = replace(observe([leak(GUILTY, 64, 5 * MB_PER_5_MIN)], 1, BURSTS), private=flat())
    judgement = judge(observation, THRESHOLDS)
    assert judgement.verdict is Verdict.LEAK
    assert [stack.stack_id for stack in judgement.stacks if stack.leaking] == [GUILTY]


def test_seen_too_seldom_a_leak_needs_the_growth_of_the_process() -> None:
    leaking = observe([leak(GUILTY, 1024, 5 * MB_PER_5_MIN)], 1, pieces(0.05))
    assert judge(leaking, THRESHOLDS).verdict is Verdict.LEAK
    assert judge(replace(leaking, private=flat()), THRESHOLDS).verdict is not Verdict.LEAK


@pytest.mark.parametrize("duty", [0.05, 0.15, 0.3, 0.6])
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize(
    "site",
    [
        pytest.param(table(2, 500, 6_000, 200), id="store, entries live 30 s"),
        pytest.param(filling_cache(2, 1000, 1e5, 20, evicts="oldest"), id="LRU full after 20 s"),
        pytest.param(filling_cache(2, 1000, 1e5, 40, evicts="none"), id="cache full after 40 s"),
        pytest.param(Site(2, 2000, lambda _: 300.0, lambda random, _: 2 + 3 * random.random()), id="queue"),
        pytest.param(Site(2, 300, lambda now_s: 1000 * math.exp(-now_s / 15)), id="interned strings"),
    ],
)
def test_in_bursts_what_is_bounded_is_no_leak(site: Site, seed: int, duty: float) -> None:
    judgement = judge(observe([site], seed, pieces(duty)), THRESHOLDS)
    assert judgement.verdict is not Verdict.LEAK
    assert not any(stack.leaking for stack in judgement.stacks)


def test_growth_alone_names_what_stayed_and_not_who_allocates_most() -> None:
    # GIVEN a leak that is seen in too few and too short pieces to be judged by itself
    observation = observe([leak(GUILTY, 1024, 20 * MB_PER_5_MIN)], 1, pieces(0.1))
    judgement = judge(replace(observation, private=line(20 * MB_PER_5_MIN)), THRESHOLDS)
    assert judgement.verdict is Verdict.LEAK
    assert judgement.stacks[0].stack_id == GUILTY
    assert judgement.stacks[0].leaking


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_few_large_blocks_seen_in_bursts_leak_when_the_memory_grows_as_fast(seed: int) -> None:
    # GIVEN a block of 1 MiB every six seconds, half of which is seen
    sites = [leak(GUILTY, 1 << 20, 50 * MB_PER_5_MIN)]
    grows, rests = line(50 * MB_PER_5_MIN), flat()
    seen = observe(sites, seed, pieces(0.5))
    judgement = judge(replace(seen, private=grows), THRESHOLDS)
    assert judgement.verdict is Verdict.LEAK
    assert judgement.stacks[0].stack_id == GUILTY
    # AND without the growth of the process so few prove nothing
    assert judge(replace(seen, private=rests), THRESHOLDS).verdict is not Verdict.LEAK


@pytest.mark.parametrize(
    ("callers", "expected"),
    [
        pytest.param((0x7001, 0x7002, 0x7003), Verdict.LEAK, id="of which nothing was seen"),
        pytest.param((0x8001, 0x8002, 0x8003), Verdict.RETENTION, id="that was seen to free"),
        pytest.param((), Verdict.RETENTION, id="that cannot be told from others"),
    ],
)
def test_who_first_uses_what_the_memory_grows_by_leaks_unless_it_was_seen_to_free(
    callers: tuple[int, ...], expected: Verdict
) -> None:
    # GIVEN 2 MB in each twelfth second, between the bursts, first used by one place; and another that turns over
    often = (0x8001, 0x8002, 0x8003)
    sites = [
        Site(GUILTY, 2 * MB, at_s=(3, 15, 27, 39, 51), kind=AllocationKind.FAULT, callers=callers),
        Site(2, 2000, lambda _: 300.0, lambda random, _: 2 + 3 * random.random(), callers=often),
    ]
    every_fourth = tuple((4.0 * index, 4.0 * index + 1.2) for index in range(15))
    heap = SimulatedHeap(sites, 1, tuning=tuning_of(LeakOptions(), 60.0), bursts=every_fourth)
    grows = Series([float(second) for second in range(61)], [50 * MB + 2 * MB * ((s + 9) // 12) for s in range(61)])
    observation = TargetObservation(PID, 60.0, grows, heap.history(), can_see_malloc=True)
    judgement = judge(observation, THRESHOLDS)
    assert judgement.verdict is expected
    assert [stack.stack_id for stack in judgement.stacks if stack.leaking] == [GUILTY] * (expected is Verdict.LEAK)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_in_bursts_busy_places_are_not_blamed_for_growth_that_is_not_theirs(seed: int) -> None:
    # GIVEN everyday traffic only, of which some is freed unseen, in a process whose memory grows
    seen = replace(observe([], seed, BURSTS), private=line(20 * MB_PER_5_MIN))
    judgement = judge(seen, THRESHOLDS)
    assert not any(stack.leaking for stack in judgement.stacks if stack.kind is AllocationKind.MALLOC)


def test_fewer_samples_after_a_change_of_the_tuning_are_no_end_of_a_leak() -> None:
    # GIVEN a leak of which a sixteenth is followed from a quarter of the window on, each block for sixteen others
    history, tuning = AllocationHistory(), tuning_of(LeakOptions(), 60.0)
    for now in range(2, 61, 2):
        n_seen = [(160 if epoch < 4 else 10) * max(0.0, min(1.0, now / 3.75 - epoch)) for epoch in range(16)]
        weights = [1_000 if epoch < 4 else 16_000 for epoch in range(16)]
        epochs = tuple(
            EpochTotals(int(n) * weight, int(n) * weight, int(n), int(n))
            for n, weight in zip(n_seen, weights, strict=True)
        )
        total, n_all = sum(epoch.outstanding_bytes for epoch in epochs), int(sum(n_seen))
        stack = StackAllocations(
            PID, GUILTY, (1,), True, AllocationKind.MALLOC, n_all, total, n_all, total, n_all, 1_000, epochs
        )
        history.observe(AllocationSnapshot(float(now), 0.0, float(now), tuning, (stack,), ProbeHits({}, n_all)))
    judgement = judge(TargetObservation(PID, 60.0, line(43_000.0), history, can_see_malloc=True), THRESHOLDS)
    assert judgement.verdict is Verdict.LEAK
    assert judgement.stacks[0].leaking


def test_in_bursts_what_is_more_than_the_memory_there_is_was_freed() -> None:
    # GIVEN a place that seems to keep 50 MB a minute, and a process that gave its memory back before the end
    seen = observe([leak(GUILTY, 1024, 250 * MB_PER_5_MIN)], 1, pieces(0.6))
    times_s = [float(second) for second in range(61)]
    gave_back = Series(times_s, [60.0 * MB if second < 50 else 5.0 * MB for second in times_s])
    assert judge(replace(seen, private=gave_back), THRESHOLDS).verdict is not Verdict.LEAK
    assert judge(replace(seen, private=flat(60.0 * MB)), THRESHOLDS).verdict is Verdict.LEAK


def test_in_bursts_a_slower_leak_stays_unseen_and_the_judgement_says_so() -> None:
    whole, burst = (judge(observe([], 1, bursts), THRESHOLDS) for bursts in ((), BURSTS))
    assert burst.minimum_detectable_bytes_per_s > whole.minimum_detectable_bytes_per_s


def test_nothing_watched_is_nothing_ruled_out() -> None:
    judgement = judge(TargetObservation(PID, 60.0, Series()), THRESHOLDS)
    assert math.isinf(judgement.minimum_detectable_bytes_per_s)
    assert judgement.verdict is Verdict.UNKNOWN


def growing_block(sizes: Sequence[int]) -> AllocationHistory:
    """One block that realloc makes larger; born in the first epoch, it stays there."""
    history, tuning = AllocationHistory(), tuning_of(LeakOptions(), 60.0)
    for index, size in enumerate(sizes):
        epochs = (EpochTotals(size, size, 1, 1), *[EpochTotals(0, 0, 0, 0)] * 15)
        stack = StackAllocations(PID, GUILTY, (1,), True, AllocationKind.MALLOC, 1, size, 1, size, 1, size, epochs)
        taken_s = (index + 1) * 60 / len(sizes)
        history.observe(AllocationSnapshot(taken_s, 0.0, taken_s, tuning, (stack,), ProbeHits({}, 1)))
    return history


@pytest.mark.parametrize(
    ("sizes", "leaks"),
    [
        pytest.param([100_000 * (index + 1) for index in range(30)], True, id="grows on"),
        pytest.param([40_000_000 + 500_000 * index for index in range(30)], True, id="was large before, grows on"),
        pytest.param([100_000 * min(index + 1, 12) for index in range(30)], False, id="stops"),
        pytest.param([100_000] * 15 + [3_000_000] * 15, False, id="grew once"),
        pytest.param([100_000 * (index % 6 + 1) for index in range(30)], False, id="shrinks again"),
    ],
)
def test_a_block_that_realloc_makes_larger(sizes: list[int], leaks: bool) -> None:
    observation = TargetObservation(PID, 60.0, flat(), growing_block(sizes), can_see_malloc=True)
    judgement = judge(observation, THRESHOLDS)
    assert (judgement.verdict is Verdict.LEAK) is leaks
    assert judgement.stacks[0].leaking is leaks


def with_hits(observation: TargetObservation, n_malloc: int, n_free: int) -> TargetObservation:
    history = observation.allocations
    assert history is not None
    assert history.last_snapshot is not None
    history.observe(replace(history.last_snapshot, hits=ProbeHits({"malloc": n_malloc, "free": n_free}, 500)))
    return replace(observation, private=flat())


def test_a_store_whose_entries_outlive_the_window_shows_by_the_blocks_it_frees() -> None:
    # GIVEN a stack that keeps all it allocates, in a process that does not grow
    sites = [leak(GUILTY, 500, 100_000.0)]
    # WHEN as many blocks are freed as are allocated
    # THEN old ones went for the new ones; were they not, it would be a leak into freed heap
    assert judge(with_hits(observe(sites, 1), 192_000, 192_000), THRESHOLDS).verdict is Verdict.CACHE_FILLING
    assert judge(with_hits(observe(sites, 1), 192_000, 180_000), THRESHOLDS).verdict is Verdict.LEAK


@pytest.mark.parametrize("counted", ["descriptors", "threads"])
def test_descriptors_and_threads_that_are_never_closed_leak(counted: str) -> None:
    growing = Series([float(second) for second in range(61)], [5.0 + second // 2 for second in range(61)])
    observation = replace(TargetObservation(PID, 60.0, flat()), **{counted: growing})
    judgement = judge(observation, THRESHOLDS)
    assert judgement.verdict is Verdict.LEAK
    assert any(counted in sentence.lower() and "30.0 a minute" in sentence for sentence in judgement.evidence)


@pytest.mark.parametrize("counted", ["descriptors", "threads"])
def test_a_burst_of_descriptors_or_threads_is_no_leak(counted: str) -> None:
    burst = Series([float(second) for second in range(61)], [5.0 + 50 * (20 < second < 40) for second in range(61)])
    judgement = judge(replace(TargetObservation(PID, 60.0, flat()), **{counted: burst}), THRESHOLDS)
    assert judgement.verdict is Verdict.STABLE


def test_a_java_heap_is_judged_by_what_collections_leave() -> None:
    # GIVEN a process that grows to the end
    growing = TargetObservation(PID, 60.0, line(2.0 * MB), runtime="java")
    times_s = [float(second) for second in range(0, 60, 5)]
    # THEN it is what is left after collections that decides
    leaking = replace(growing, heap_after_gc=Series(times_s, [20 * MB + 1e6 * time_s for time_s in times_s]))
    healthy = replace(growing, heap_after_gc=Series(times_s, [20.0 * MB] * 12))
    unknown = replace(growing, heap_after_gc=Series())
    verdicts = [judge(observation, THRESHOLDS).verdict for observation in (leaking, healthy, unknown)]
    assert verdicts == [Verdict.LEAK, Verdict.RETENTION, Verdict.UNKNOWN]


def test_mappings_of_a_collected_heap_are_no_leaking_stack() -> None:
    observation = observe([replace(leak(GUILTY, 1 << 18, MB), kind=AllocationKind.MMAP)], 1)
    judgement = judge(replace(observation, runtime="node"), THRESHOLDS)
    assert not any(stack.leaking and stack.kind is AllocationKind.MMAP for stack in judgement.stacks)


def test_a_process_that_ended_is_no_leak() -> None:
    observation = replace(observe([leak(GUILTY, 1024, 5 * MB_PER_5_MIN)], 1), ended=True)
    judgement = judge(observation, THRESHOLDS)
    assert judgement.verdict is Verdict.UNKNOWN
    assert "ended while it was watched" in " ".join(judgement.evidence)


def judged(**settings: object) -> Judgement:
    thresholds = Thresholds.of(replace(LeakOptions(), **settings))
    return judge(observe([leak(GUILTY, 64, MB_PER_5_MIN)], 1), thresholds)


def test_the_minimum_size_decides() -> None:
    assert judged().verdict is Verdict.LEAK
    assert judged(min_allocation_size_bytes=1 << 20).verdict is not Verdict.LEAK


def test_the_minimum_age_decides_what_is_unfreed() -> None:
    young, old = judged(min_unfreed_age_s=5.0), judged(min_unfreed_age_s=30.0)
    assert young.unfreed_bytes > old.unfreed_bytes > 0
    assert young.unfreed_count > old.unfreed_count > 0


def test_the_sensitivity_decides() -> None:
    assert judged(sensitivity="conservative").verdict is not Verdict.LEAK
    assert judged(sensitivity="aggressive").verdict is Verdict.LEAK


def test_the_sensitivity_draws_the_line_of_probability() -> None:
    observation = TargetObservation(PID, 60.0, line(50_000.0))
    verdicts = {
        name: judge(observation, Thresholds.of(LeakOptions(sensitivity=name))).verdict for name in SENSITIVITIES
    }
    assert verdicts == {"conservative": Verdict.UNKNOWN, "balanced": Verdict.LEAK, "aggressive": Verdict.LEAK}


def test_an_age_that_the_window_cannot_reach_is_said() -> None:
    assert any("watch longer" in sentence for sentence in judged(min_unfreed_age_s=300.0).evidence)


def test_the_forecast_is_in_the_judgement() -> None:
    limits = (MemoryLimit(200 * MB, 100 * MB, "memory.max"), MemoryLimit(9000 * MB, 0, "memory of the host"))
    observation = TargetObservation(PID, 60.0, line(100_000.0), limits=limits)
    coming = judge(observation, THRESHOLDS).forecast
    assert coming is not None
    assert coming.oom_in_s == pytest.approx(1000.0, rel=0.01)
    assert coming.limit_source == "memory.max"


def test_evidence_says_what_was_seen_with_units() -> None:
    evidence = judged().evidence
    assert evidence[0].startswith("1 place in the program keeps allocating memory that is never freed")
    assert all(sentence.endswith(".") for sentence in evidence)
    assert sum("KB" in sentence or "MB" in sentence for sentence in evidence) >= 3


def test_the_governor_speaks_in_the_evidence() -> None:
    observation = replace(observe([], 1), downgrades=("Seen in bursts only.",))
    assert "Seen in bursts only." in judge(observation, THRESHOLDS).evidence
