"""SpoolStatistics: where every payload has gone. The sums hold at any moment; ``balance`` is the test of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SpoolStatistics:
    """Counts of payloads since the spool was opened.

    Attributes:
        n_put: handed to the spool, also those it could not keep.
        n_recovered: found on disk at the start.
        n_split: made more by splitting: two out of one.
        n_sent: taken by the receiver.
        n_quarantined: set aside, refused or unreadable.
        n_dropped_quota: dropped, oldest first, for want of room.
        n_dropped_age: dropped because nobody took them in time.
        n_dropped_unwritten: could not be written: disk full or broken.
        n_dropped_vanished: removed from the directory by somebody else.
        n_spooled: lying there now, and their bytes on disk.
        n_foreign: files in the directory that were none of ours, set aside at the start. Not payloads.
        n_unfinished: temporary files of a killed predecessor, removed at the start. Never acknowledged.
        n_in_quarantine: lying there now, whoever put them there, and their bytes on disk.
        n_quarantine_dropped: dropped from the quarantine for want of room or by age.
    """

    n_put: int = 0
    n_recovered: int = 0
    n_split: int = 0
    n_sent: int = 0
    n_quarantined: int = 0
    n_dropped_quota: int = 0
    n_dropped_age: int = 0
    n_dropped_unwritten: int = 0
    n_dropped_vanished: int = 0
    n_spooled: int = 0
    spooled_bytes: int = 0
    n_foreign: int = 0
    n_unfinished: int = 0
    n_in_quarantine: int = 0
    quarantine_bytes: int = 0
    n_quarantine_dropped: int = 0

    @property
    def n_made(self) -> int:
        return self.n_put + self.n_recovered + self.n_split

    @property
    def n_dropped(self) -> int:
        return self.n_dropped_quota + self.n_dropped_age + self.n_dropped_unwritten + self.n_dropped_vanished

    @property
    def balance(self) -> int:
        """Payloads that nobody can account for. Always 0."""
        return self.n_made - self.n_sent - self.n_spooled - self.n_quarantined - self.n_dropped
