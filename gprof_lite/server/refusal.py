"""What the server says no with: an HTTP status, Pyroscope's error code, and a sentence for a person."""

from __future__ import annotations

from typing import Final

from gprof_lite.errors import GprofLiteError

# Status of each Connect error code that this server uses. Source: the Connect protocol's HTTP mapping, and the recorded
# answers of Pyroscope 1.12; the last four are statuses that Pyroscope sends without a code of its own.
_STATUS_BY_CODE: Final = {
    "invalid_argument": 400,
    "permission_denied": 403,
    "not_found": 404,
    "unknown": 422,
    "unavailable": 503,
    "deadline_exceeded": 504,
    "method_not_allowed": 405,
    "too_large": 413,
    "unsupported_media_type": 415,
    "internal": 500,
}

# A message may quote what the client sent: never more of it than this.
MAX_MESSAGE_LENGTH: Final = 2000


class Refusal(GprofLiteError):
    """A request that is not served. ``message`` says what is wrong with it and, where it helps, what is accepted."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message if len(message) <= MAX_MESSAGE_LENGTH else message[:MAX_MESSAGE_LENGTH] + "..."

    @property
    def status(self) -> int:
        """The HTTP status of ``code``."""
        return _STATUS_BY_CODE[self.code]

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


def invalid(message: str) -> Refusal:
    """The commonest refusal: 400, the request itself is wrong."""
    return Refusal("invalid_argument", message)
