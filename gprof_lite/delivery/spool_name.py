"""SpoolName: all that the spool must know of a payload without opening its file.

    01795214885000000000-0d6f...32 hex...-w01-cpu-nginx.service.collapsed.gz

Start of the window in nanoseconds (20 digits, so that names sort by time), origin id, part (``w`` is the whole, ``w01``
the second half of its first half), sample type, and the service for people who look into the directory.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from gprof_lite.delivery.payload import MAX_PART_DEPTH, Payload
from gprof_lite.model.profile import SERVICE

SUFFIX: Final = ".collapsed.gz"
MAX_SLUG_LENGTH: Final = 48
_PATTERN: Final = re.compile(
    rf"(\d{{20}})-([0-9a-f]{{32}})-w([01]{{0,{MAX_PART_DEPTH}}})-([a-z_]{{1,20}})-([\w.]{{1,{MAX_SLUG_LENGTH}}})"
    + re.escape(SUFFIX),
    re.ASCII,
)
_NOT_IN_SLUG: Final = re.compile(r"[^\w.]+", re.ASCII)


@dataclass(frozen=True, slots=True, order=True)
class SpoolName:
    """A file name in parts; orders by start of the window first."""

    start_ns: int
    origin_id: UUID
    part: str
    sample_type: str
    slug: str

    def __str__(self) -> str:
        return f"{self.start_ns:020d}-{self.origin_id.hex}-w{self.part}-{self.sample_type}-{self.slug}{SUFFIX}"

    @classmethod
    def of(cls, payload: Payload) -> SpoolName:
        """The name that a payload is kept under."""
        profile = payload.profile
        return cls(
            profile.window.start_ns,
            payload.origin_id,
            payload.part,
            profile.sample_type.value,
            slug(profile.labels.get(SERVICE, "")),
        )

    @classmethod
    def parse(cls, text: str) -> SpoolName | None:
        """The reverse of ``str``; None for a name that is not one of ours."""
        match = _PATTERN.fullmatch(text)
        if match is None:
            return None
        return cls(int(match[1]), UUID(match[2]), match[3], match[4], match[5])

    @property
    def halves(self) -> tuple[SpoolName, SpoolName]:
        """The names its halves would have."""
        return self._with_part(self.part + "0"), self._with_part(self.part + "1")

    def _with_part(self, part: str) -> SpoolName:
        return SpoolName(self.start_ns, self.origin_id, part, self.sample_type, self.slug)


def slug(text: str) -> str:
    """A text from outside as a harmless piece of a file name: ASCII letters, digits, ``_`` and ``.``, bounded."""
    return _NOT_IN_SLUG.sub("_", text)[:MAX_SLUG_LENGTH] or "_"
