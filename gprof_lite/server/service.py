"""The embedded server as a whole: store, application, listener, and a thread that keeps the database small."""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

from gprof_lite.clock import Clock, Deadline, SystemClock
from gprof_lite.config import Address
from gprof_lite.server.app import App
from gprof_lite.server.listener import Listener, bind
from gprof_lite.server.options import ServerOptions
from gprof_lite.server.refusal import Refusal
from gprof_lite.server.store import Store
from gprof_lite.stop import StopToken

logger = logging.getLogger(__name__)

RETENTION_EVERY_S: Final = 15.0
Ready = Callable[[Address], None]


def serve(
    options: ServerOptions, stop: StopToken, *, on_ready: Ready | None = None, clock: Clock | None = None
) -> None:
    """Serve until the stop token is set, then end within two seconds.

    Args:
        on_ready: called once the server can be reached, with its real address (port 0 takes a free one).

    Raises:
        PrerequisiteError: the address or the data directory cannot be used; nothing is left open.
    """
    with ExitStack() as stack:
        listening = stack.enter_context(bind(options.listen))
        clock = clock or SystemClock()
        store = stack.enter_context(Store(options, clock))
        stack.enter_context(_retention_thread(store, clock))
        listener = Listener(App(store, options, clock), listening, options.max_body_bytes)
        address = Address(options.listen.host, listener.port)
        logger.info("server ready", extra={"address": str(address), "data": str(options.server_data)})
        if on_ready is not None:
            on_ready(address)
        listener.serve_until(stop)


@contextmanager
def serving(options: ServerOptions, clock: Clock | None = None) -> Iterator[Address]:
    """A server in a thread of this process, for as long as the context lasts. Gives its address.

    Raises:
        PrerequisiteError: as ``serve``.
    """
    ready = threading.Event()
    addresses: list[Address] = []
    failures: list[BaseException] = []

    def note(address: Address) -> None:
        addresses.append(address)
        ready.set()

    def run() -> None:
        try:
            serve(options, stop, on_ready=note, clock=clock)
        except BaseException as exc:  # noqa: BLE001  a thread's top: handed to the one who waits
            failures.append(exc)
            logger.error("server ended", extra={"error": repr(exc)})
        finally:
            ready.set()

    with StopToken() as stop:
        thread = threading.Thread(target=run, name="server")
        thread.start()
        try:
            ready.wait()
            if not addresses:
                thread.join()
                raise failures[0]
            yield addresses[0]
        finally:
            stop.set()
            thread.join()


@contextmanager
def _retention_thread(store: Store, clock: Clock) -> Iterator[None]:
    def run() -> None:
        while True:
            try:
                store.shrink()
            except (Refusal, sqlite3.Error) as exc:
                logger.warning("old profiles cannot be deleted", extra={"error": str(exc)})
            if over.wait(Deadline.after(RETENTION_EVERY_S, clock)):
                return

    with StopToken() as over:
        thread = threading.Thread(target=run, name="server retention")
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
