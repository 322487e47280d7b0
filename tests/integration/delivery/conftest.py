"""Deliveries that talk to a bad server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from gprof_lite.clock import SystemClock
from gprof_lite.delivery.delivery import Delivery, DeliveryOptions, open_delivery
from tests.integration.delivery.bad_server import IMPATIENT, BadServer, OpenDelivery


@pytest.fixture
def server() -> Iterator[BadServer]:
    """Not started yet."""
    with BadServer() as server:
        yield server


@pytest.fixture
def spool_directory(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
def open_to(spool_directory: Path, server: BadServer) -> OpenDelivery:
    """Opens a delivery to the bad server, with short waits and any other settings."""

    def open_it(**settings: object) -> AbstractContextManager[Delivery]:
        chosen: dict[str, object] = {
            "server": server.url,
            "spool_directory": spool_directory,
            "upload_timeout_s": 5.0,
            **settings,
        }
        options = DeliveryOptions(**chosen)  # type: ignore[arg-type]
        return open_delivery(options, "h1", SystemClock(), environment={}, policy=IMPATIENT)

    return open_it
