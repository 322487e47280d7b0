"""What a sink is: it takes one payload, or says in one of four ways why not."""

from __future__ import annotations

from typing import Protocol

from gprof_lite.clock import Deadline
from gprof_lite.delivery.payload import Payload
from gprof_lite.errors import Transient
from gprof_lite.stop import StopToken


class Unreachable(Transient):
    """There was no connection: worth another try, and it says nothing of the payload."""


class Sink(Protocol):
    """A place that profiles go to. Used by one thread; a context manager where it owns something.

    Attributes:
        name: for logs.
    """

    @property
    def name(self) -> str: ...

    def send(self, payload: Payload, deadline: Deadline, stop: StopToken) -> None:
        """Deliver a payload. Returning means: the receiver has it. Ends by the deadline, and at once when stopped.

        Raises:
            Unreachable: nobody was there to take it.
            Transient: worth another try; also when it was cut by deadline or stop, so that nobody knows.
            TooLarge: wants to be split.
            Rejected: never to be sent again as it is.
            Unauthorized: the credentials are missing or wrong.
        """

    def has_new_credentials(self) -> bool:
        """Whether the credentials have changed since the last ``send``, so that another try makes sense."""

    def close(self) -> None:
        """Release what it owns."""
