"""Thresholds: what mode, sensitivity and single settings come to, as numbers."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, TypeVar

from gprof_lite.leaks.options import AGGRESSIVE, BALANCED, CONSERVATIVE, DEBUG, LeakOptions
from gprof_lite.model.allocation import ProbeTuning

PAGE_BYTES: Final = 4096  # the unit of ``rss_growth_threshold``, whatever the page size of the host
KIB: Final = 1024
MB: Final = 1_000_000
SAMPLES_PER_MIN_SIZE: Final = 4
MIN_EPOCH_NS: Final = 250_000_000  # snapshots come about once a second: finer epochs tell nothing more

Number = TypeVar("Number", int, float)


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """One row of the table in the design.

    Attributes:
        leak_bytes_per_s: growth below this is nobody's concern. Balanced: a leak of 0.2 MB in 5 minutes is 670 B/s and
            shall be found, so the line is below it.
        leak_probability: a target is called leaking from this probability on.
    """

    min_size_bytes: int
    min_age_s: float
    rss_growth_bytes: int
    leak_bytes_per_s: float
    leak_probability: float


SENSITIVITIES: Final = MappingProxyType(
    {
        CONSERVATIVE: Sensitivity(100 * KIB, 300.0, 500 * MB, 10_000.0, 0.8),
        BALANCED: Sensitivity(10 * KIB, 30.0, 100 * MB, 300.0, 0.5),
        AGGRESSIVE: Sensitivity(1 * KIB, 10.0, 10 * MB, 100.0, 0.4),
    }
)


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Everything the engine compares with.

    Attributes:
        min_size_bytes: a stack with less unfreed is no leak; also what the probes call a medium allocation.
        min_age_s: blocks younger than this are not unfreed.
        suspect_growth_bytes: growth that makes a process a suspect of the screen.
        check_growth_bytes: growth between two checks that is worth an event.
        check_interval_s: time between two checks.
        leak_bytes_per_s, leak_probability: see ``Sensitivity``.
        false_discovery_rate: share of false ones among the processes called growing, 0..1.
        horizon_s: of the forecast.
    """

    min_size_bytes: int
    min_age_s: float
    suspect_growth_bytes: int
    check_growth_bytes: int
    check_interval_s: float
    leak_bytes_per_s: float
    leak_probability: float
    false_discovery_rate: float
    horizon_s: float

    @classmethod
    def of(cls, options: LeakOptions) -> Thresholds:
        """The sensitivity's row, single settings over it."""
        row = SENSITIVITIES[options.sensitivity]
        return cls(
            min_size_bytes=_either(options.min_allocation_size_bytes, row.min_size_bytes),
            min_age_s=_either(options.min_unfreed_age_s, row.min_age_s),
            suspect_growth_bytes=_either(options.rss_growth_bytes, row.rss_growth_bytes),
            check_growth_bytes=options.rss_growth_threshold_pages * PAGE_BYTES,
            check_interval_s=options.rss_check_interval_s,
            leak_bytes_per_s=row.leak_bytes_per_s,
            leak_probability=row.leak_probability,
            false_discovery_rate=options.false_discovery_percent / 100,
            horizon_s=options.forecast_horizon_s,
        )


def _either(given: Number | None, default: Number) -> Number:
    return default if given is None else given


def tuning_of(options: LeakOptions, window_s: float) -> ProbeTuning:
    """What the probes of a target are told for a window of ``window_s``.

    Small blocks are sampled so that four are followed, on average, where the minimum size was allocated: enough to see
    what becomes of them, and cheap beside the hits that are not sampled. Debug follows every block. Epochs share the
    window out, so that the age of a block is known to a sixteenth of it.
    """
    thresholds = Thresholds.of(options)
    usual = ProbeTuning()
    everything = options.mode == DEBUG
    sample_bytes = max(1, thresholds.min_size_bytes * options.sampling_rate // SAMPLES_PER_MIN_SIZE)
    return ProbeTuning(
        min_size_bytes=thresholds.min_size_bytes,
        sampling_rate=1 if everything else options.sampling_rate,
        large_bytes=max(usual.large_bytes, thresholds.min_size_bytes),
        sample_bytes=0 if everything else sample_bytes,
        n_epochs=usual.n_epochs,
        epoch_ns=max(MIN_EPOCH_NS, int(window_s * 1e9 / usual.n_epochs) + 1),
    )
