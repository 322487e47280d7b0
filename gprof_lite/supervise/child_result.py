"""How a child ended, as values."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ExitReport:
    """What wait4(2) says of a child.

    Attributes:
        status: the wait status.
        cpu_s: user and system time of the child and of those of its descendants that it waited for.
        peak_rss_bytes: its highest resident size; not below the few MB of the process it was forked from.
        has_leftovers: something that it started could not be killed in time (uninterruptible sleep).
    """

    status: int
    cpu_s: float = 0.0
    peak_rss_bytes: int = 0
    has_leftovers: bool = False


@dataclass(frozen=True, slots=True)
class ChildUsage:
    """What a child cost: see ``ExitReport``."""

    cpu_s: float = 0.0
    peak_rss_bytes: int = 0

    def __add__(self, other: ChildUsage) -> ChildUsage:
        """CPU adds up; the peak is the higher one, as of two children in turn."""
        return ChildUsage(self.cpu_s + other.cpu_s, max(self.peak_rss_bytes, other.peak_rss_bytes))


@dataclass(frozen=True, slots=True)
class ChildResult:
    """A child that has ended.

    Attributes:
        argv: what was executed.
        returncode: exit code, or minus the signal that killed it. None only for a child that SIGKILL did not end in
            time (uninterruptible sleep): the warden keeps it and reaps it when it dies.
        stopped: we had asked it to end before it did.
        killed: it did not end in its grace, or could not be asked: SIGKILL was sent.
        usage: CPU and memory.
        stderr_tail: the end of its standard error, where that was kept (``Tail``).
        lifetime_s: from exec to the report of its end.
        output_dropped_bytes: bytes of both outputs that were neither kept nor passed on.
        output_complete: both outputs were read to their end. False when something that outlived the child kept a pipe
            open, or when the reader of a ``Stream`` did not read to the end.
        has_leftovers: something that it started could not be killed in time.
    """

    argv: tuple[str, ...]
    returncode: int | None
    stopped: bool
    killed: bool
    usage: ChildUsage
    stderr_tail: str
    lifetime_s: float
    output_dropped_bytes: int = 0
    output_complete: bool = True
    has_leftovers: bool = False
