"""Every error this package raises on purpose, in one tree.

    GprofLiteError
     ├─ ConfigError           a setting is wrong: names key, value and what is accepted
     ├─ PrerequisiteError     a tool, a kernel feature or a privilege is missing; carries the mending command
     ├─ ChildError            one external profiler failed
     │   ├─ SpawnFailed       it never ran
     │   ├─ NotReady          it ran, but did not become ready in time
     │   └─ UnexpectedExit    it ended before it was asked to
     ├─ TargetGone            the process we observe ended, or its pid is somebody else's now
     ├─ ProbeError            one of our BPF programs cannot be used
     │   └─ LoadRejected      the kernel refused it; carries the verifier's log
     ├─ FormatError           a whole input is not what it claims to be (one bad line is counted, not raised)
     ├─ SpoolError            the spool directory cannot be used
     ├─ server.refusal.Refusal  the embedded server says no to a request: status, code and a sentence
     └─ DeliveryError
         ├─ Transient         worth another try; may carry ``retry_after_s``
         │   └─ delivery.sinks.contract.Unreachable  nobody answered at all
         ├─ TooLarge          the receiver wants a smaller payload: split it
         ├─ Rejected          never to be sent again as it is: quarantine
         └─ Unauthorized      credentials are missing or wrong: stop sending, keep spooling

Who must act divides them: the operator (``ConfigError``, ``PrerequisiteError``), we ourselves (restart, retry), or
nobody (``TargetGone``). Misuse of our own interfaces is ``ValueError`` or ``RuntimeError``. A request to stop is no
error: see ``gprof_lite.stop.StopRequested``.

Errors hold fields; ``__str__`` makes the sentence. Foreign exceptions are translated once, where the foreign library
is called, always ``from exc``.
"""

from __future__ import annotations


class GprofLiteError(Exception):
    """Base of all of the above. ``hint`` is the command or step that mends it, or empty."""

    hint: str = ""


class ConfigError(GprofLiteError):
    """A setting cannot be used. ``key`` as in the YAML file, ``value`` as given, ``accepted`` in words."""

    def __init__(self, key: str, value: object, accepted: str) -> None:
        super().__init__(key, value, accepted)
        self.key = key
        self.value = value
        self.accepted = accepted

    def __str__(self) -> str:
        return f"setting {self.key!r}: {self.value!r} is not accepted; expected {self.accepted}"


class PrerequisiteError(GprofLiteError):
    """Something outside of us is missing. ``missing`` says what, ``why`` what fails without it."""

    def __init__(self, missing: str, why: str, hint: str = "") -> None:
        super().__init__(missing, why, hint)
        self.missing = missing
        self.why = why
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.missing}: {self.why}"


class ChildError(GprofLiteError):
    """A child process failed. ``stderr_tail`` is the bounded end of what it said, never its whole output."""

    def __init__(
        self, argv: tuple[str, ...], reason: str, *, returncode: int | None = None, stderr_tail: str = ""
    ) -> None:
        super().__init__(argv, reason)
        self.argv = argv
        self.reason = reason
        self.returncode = returncode
        self.stderr_tail = stderr_tail

    def __str__(self) -> str:
        program = self.argv[0] if self.argv else "?"
        last_line = self.stderr_tail.strip().rpartition("\n")[2]
        said = f"; it said: {last_line}" if last_line else ""
        return f"{program}: {self.reason}{said}"


class SpawnFailed(ChildError):
    """The program could not be executed. Nothing is left of it."""


class NotReady(ChildError):
    """The program started but its readiness condition did not hold by the deadline. It has been stopped."""


class UnexpectedExit(ChildError):
    """The program ended by itself. ``returncode`` is negative for a signal."""


class TargetGone(GprofLiteError):
    """The observed process ended or its pid was reused. ``pid`` is what it was known by."""

    def __init__(self, pid: int) -> None:
        super().__init__(pid)
        self.pid = pid

    def __str__(self) -> str:
        return f"process {self.pid} has ended"


class ProbeError(GprofLiteError):
    """One of our BPF programs cannot be used. ``probe`` names it, ``reason`` says why in words."""

    def __init__(self, probe: str, reason: str, hint: str = "") -> None:
        super().__init__(probe, reason, hint)
        self.probe = probe
        self.reason = reason
        self.hint = hint

    def __str__(self) -> str:
        return f"probe {self.probe}: {self.reason}"


class LoadRejected(ProbeError):
    """The kernel refused to load or attach it. ``verifier_log`` is the bounded end of what it said."""

    def __init__(self, probe: str, reason: str, *, verifier_log: str = "", hint: str = "") -> None:
        super().__init__(probe, reason, hint)
        self.verifier_log = verifier_log


class FormatError(GprofLiteError):
    """The structure of an input is broken. ``source`` names the input, ``reason`` says where and how."""

    def __init__(self, source: str, reason: str) -> None:
        super().__init__(source, reason)
        self.source = source
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.source}: {self.reason}"


class SpoolError(GprofLiteError):
    """The spool directory cannot be created, locked, written or read."""


class DeliveryError(GprofLiteError):
    """A payload was not taken. ``status`` is the HTTP status, or None when there was no answer."""

    def __init__(self, reason: str, *, status: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status

    def __str__(self) -> str:
        return self.reason if self.status is None else f"{self.reason} (HTTP {self.status})"


class Transient(DeliveryError):
    """Worth another try. ``retry_after_s`` is what the receiver asked for, if it asked."""

    def __init__(self, reason: str, *, status: int | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(reason, status=status)
        self.retry_after_s = retry_after_s


class TooLarge(DeliveryError):
    """The receiver refuses a payload of this size."""


class Rejected(DeliveryError):
    """The receiver will never take this payload as it is."""


class Unauthorized(DeliveryError):
    """The receiver does not accept our credentials."""
