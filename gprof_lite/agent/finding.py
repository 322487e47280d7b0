"""From what the engine judged of a target, in addresses, to a Finding with names."""

from __future__ import annotations

from typing import Final

from gprof_lite.agent.target_watch import TargetWatch
from gprof_lite.leaks.observation import JudgedStack, Judgement
from gprof_lite.model.allocation import AllocationKind
from gprof_lite.model.finding import Finding, FindingStack
from gprof_lite.model.frame import Stack
from gprof_lite.model.losses import Losses
from gprof_lite.symbols.symbolizer import Symbolizer

# Stacks beyond these are in the profiles, not in the finding.
MAX_STACKS: Final = 25
MAX_CMDLINE: Final = 1_000


def make_finding(
    watch: TargetWatch,
    judgement: Judgement,
    symbolizer: Symbolizer,
    *,
    allocator: str,
    losses: Losses,
    overhead_percent: float,
) -> Finding:
    """Symbolize and put together. Stacks that differ only below a source line are added up."""
    facts = watch.facts
    return Finding(
        pid=facts.identity.pid,
        start_time_ticks=facts.identity.start_time_ticks,
        comm=facts.comm,
        cmdline=facts.cmdline[:MAX_CMDLINE],
        container=facts.container,
        cgroup=facts.cgroup,
        runtime=facts.runtime,
        allocator=allocator,
        verdict=judgement.verdict,
        probability=judgement.probability,
        unfreed_bytes=judgement.unfreed_bytes,
        unfreed_count=judgement.unfreed_count,
        growth_bytes_per_s=judgement.growth_bytes_per_s,
        growth_interval=judgement.growth_interval,
        rss_bytes=watch.last.rss_bytes,
        minimum_detectable_bytes_per_s=judgement.minimum_detectable_bytes_per_s,
        forecast=judgement.forecast,
        stacks=_stacks(watch, judgement, symbolizer),
        evidence=(*judgement.evidence, *watch.remarks),
        losses=losses.counts,
        overhead_percent=overhead_percent,
    )


def _stacks(watch: TargetWatch, judgement: Judgement, symbolizer: Symbolizer) -> tuple[FindingStack, ...]:
    identity = watch.identity
    named: dict[tuple[Stack, str, bool], FindingStack] = {}
    for judged in judgement.stacks[:MAX_STACKS]:
        # A fault's first address is the instruction that touched the page; a block's is where its call returns to.
        is_return = judged.kind is not AllocationKind.FAULT
        frames = symbolizer.stack(
            identity.pid, identity.start_time_ticks, judged.addresses, lines=True, leaf_is_return=is_return
        )
        key = (frames, judged.kind.value, judged.leaking)
        named[key] = _added(named.get(key), frames, judged)
    return tuple(named.values())


def _added(known: FindingStack | None, frames: Stack, judged: JudgedStack) -> FindingStack:
    if known is None:
        return FindingStack(
            frames=frames,
            bytes=judged.bytes,
            count=judged.count,
            oldest_age_s=judged.oldest_age_s,
            kind=judged.kind,
            survival=judged.survival,
            leaking=judged.leaking,
        )
    return FindingStack(
        frames=frames,
        bytes=known.bytes + judged.bytes,
        count=known.count + judged.count,
        oldest_age_s=max(known.oldest_age_s, judged.oldest_age_s),
        kind=known.kind,
        survival=known.survival,
        leaking=known.leaking,
    )
