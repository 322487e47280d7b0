"""Growth: trend and shape of a target's memory, or of its descriptors or threads, and whether it is worth a word."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gprof_lite.leaks.series import Series
from gprof_lite.leaks.shape import Shape, shape_of
from gprof_lite.leaks.trend import Trend, trend_of

# Growth of one target whose window was asked for: no other tests stand beside it, as they do in the screen.
GROWTH_CHANCE: Final = 0.025
# Where something else speaks for it, too.
LIKELY_CHANCE: Final = 0.1
# Growth alone, without a stack that explains it, must be more than this.
MIN_LONE_GROWTH_BYTES: Final = 128 * 1024


@dataclass(frozen=True, slots=True)
class Growth:
    """Trend and shape of one series, and whether it grows to be worth a word."""

    trend: Trend
    shape: Shape
    is_real: bool

    @classmethod
    def of(cls, series: Series, least: float) -> Growth:
        trend, shape = trend_of(series.times_s, series.values), shape_of(series.times_s, series.values)
        return cls(trend, shape, shape.growth >= least)

    @property
    def persists(self) -> bool:
        """It grows, not by chance, and had not ended."""
        return self.is_real and self.shape.goes_on and self.trend.p_value < GROWTH_CHANCE

    @property
    def may_persist(self) -> bool:
        """The same with less certainty: few steps, however regular, may be chance."""
        return self.is_real and self.shape.goes_on and self.trend.p_value < LIKELY_CHANCE
