"""Who may ask."""

from __future__ import annotations

import pytest
from werkzeug.test import EnvironBuilder
from werkzeug.wrappers import Request

from gprof_lite.server.guard import Guard
from gprof_lite.server.refusal import Refusal

GUARD = Guard("127.0.0.1", ("profiles.example",))


def request(method: str = "GET", **headers: str) -> Request:
    return Request(
        EnvironBuilder(method=method, headers={n.replace("_", "-"): v for n, v in headers.items()}).get_environ()
    )


@pytest.mark.parametrize(
    "host", ["127.0.0.1:4040", "localhost:4040", "[::1]:4040", "192.168.1.7", "profiles.example:80", "LOCALHOST."]
)
def test_our_names_pass(host: str) -> None:
    GUARD.check(request(Host=host))


@pytest.mark.parametrize("host", ["evil.example:4040", "localhost.evil.example", "", "[", "127.0.0.1.evil.example"])
def test_other_names_are_refused(host: str) -> None:
    # GIVEN a name that a foreign page has pointed at our address WHEN it asks THEN it is refused
    with pytest.raises(Refusal) as refused:
        GUARD.check(request(Host=host))
    assert refused.value.status == 403


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({"Origin": "http://evil.example"}, id="origin"),
        pytest.param({"Origin": "null"}, id="opaque-origin"),
        pytest.param({"Sec_Fetch_Site": "cross-site"}, id="fetch-site"),
    ],
)
def test_a_foreign_page_cannot_push(headers: dict[str, str]) -> None:
    with pytest.raises(Refusal) as refused:
        GUARD.check(request("POST", Host="127.0.0.1:4040", **headers))
    assert refused.value.status == 403


def test_our_page_and_plain_clients_can_push() -> None:
    GUARD.check(request("POST", Host="127.0.0.1:4040"))
    GUARD.check(request("POST", Host="127.0.0.1:4040", Origin="http://127.0.0.1:4040", Sec_Fetch_Site="same-origin"))
