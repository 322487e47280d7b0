"""The settings of the embedded server."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gprof_lite.config import Address, byte_size, duration_s, listen_address, path, setting, some_text

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """What an operator can choose about the server."""

    listen: Address = setting(
        Address("127.0.0.1", 4040),
        read=listen_address(),
        help="address and port of the server; there is no password, so think before leaving loopback",
        metavar="HOST:PORT",
    )
    server_data: Path = setting(
        Path("/var/lib/gprof-lite/server"),
        read=path(),
        help="directory of the server's database",
        flags=("--data",),
        metavar="DIR",
    )
    retention_age_s: float = setting(
        7 * 86_400.0, read=duration_s(60.0), help="profiles older than this are deleted", metavar="DURATION"
    )
    retention_bytes: int = setting(
        4096 * MIB, read=byte_size(8 * MIB), help="the oldest profiles are deleted beyond this size", metavar="SIZE"
    )
    accept_past_s: float = setting(
        3600.0, read=duration_s(1.0), help="profiles that are older when they arrive are refused", metavar="DURATION"
    )
    accept_future_s: float = setting(
        600.0, read=duration_s(0.0), help="profiles further ahead of our clock are refused", metavar="DURATION"
    )
    max_body_bytes: int = setting(
        16 * MIB,
        read=byte_size(64 * 1024, 256 * MIB),
        help="largest request, as sent and unpacked; beyond it the answer is 413",
        metavar="SIZE",
    )
    server_names: tuple[str, ...] = setting(
        (),
        read=some_text("a host name"),
        help="host name under which browsers may reach the server, beside localhost, its own name and any IP address",
        many=True,
        metavar="NAME",
    )
