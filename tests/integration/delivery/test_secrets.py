"""Credentials reach the server in one header, and nothing else anywhere."""

from __future__ import annotations

import logging
import os
import subprocess
from base64 import b64encode
from pathlib import Path

import pytest

from gprof_lite.clock import SystemClock
from gprof_lite.delivery.delivery import Delivery, DeliveryOptions, make_sink, open_delivery
from gprof_lite.delivery.sinks.credentials import TOKEN_VARIABLE
from gprof_lite.delivery.uploader import UploaderState
from gprof_lite.errors import ConfigError
from tests.integration.delivery.bad_server import (
    IMPATIENT,
    BadServer,
    Behaviour,
    OpenDelivery,
    Request,
    answer,
    make_profile,
    wait_balanced,
    wait_until,
)

SECRET = "s3cr3t-t0ken-0123456789"


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(SECRET + "\n")
    return path


def echo(status: int) -> Behaviour:
    """Some servers and proxies repeat the request in their answer."""
    return lambda exchange: answer(status, f"you sent {exchange.request.headers}".encode())(exchange)


def log_text(caplog: pytest.LogCaptureFixture) -> str:
    return "\n".join(str(vars(record)) for record in caplog.records) + caplog.text


def test_token_and_tenant_travel_in_headers(server: BadServer, open_to: OpenDelivery, token_file: Path) -> None:
    # GIVEN
    server.start()
    # WHEN
    with open_to(server_token_file=token_file, server_tenant="team-a") as delivery:
        delivery.put(make_profile())
        wait_balanced(delivery)
    # THEN
    (request,) = server.requests
    assert request.headers["authorization"] == f"Bearer {SECRET}"
    assert request.headers["x-scope-orgid"] == "team-a"
    assert SECRET not in request.path
    assert SECRET.encode() not in request.body


@pytest.mark.parametrize("status", [400, 401, 413, 503])
def test_secrets_are_in_no_log_no_error_and_no_file(
    server: BadServer,
    open_to: OpenDelivery,
    spool_directory: Path,
    token_file: Path,
    caplog: pytest.LogCaptureFixture,
    status: int,
) -> None:
    # GIVEN a server that echoes what it gets, and a log that keeps everything
    caplog.set_level(logging.DEBUG)
    server.decide = lambda request: echo(status)
    server.start()
    # WHEN
    with open_to(server_token_file=token_file) as delivery:
        delivery.put(make_profile())
        wait_until(lambda: delivery.statistics().uploader.last_error != "", "an error")
        statistics = repr(delivery.statistics())
    # THEN the words came through, without the secret
    assert "***" in statistics
    files = b"".join(path.read_bytes() for path in spool_directory.rglob("*") if path.is_file())
    for place in (statistics, log_text(caplog), files.decode(errors="replace")):
        assert SECRET not in place


def test_password_is_in_no_log_in_any_spelling(
    server: BadServer, open_to: OpenDelivery, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # GIVEN
    caplog.set_level(logging.DEBUG)
    (tmp_path / "basic").write_text(f"me:{SECRET}\n")
    server.decide = lambda request: echo(503)
    server.start()
    # WHEN
    with open_to(server_basic_auth_file=tmp_path / "basic") as delivery:
        delivery.put(make_profile())
        wait_until(lambda: delivery.statistics().uploader.n_failures > 1, "tries")
    # THEN
    spellings = (SECRET, b64encode(f"me:{SECRET}".encode()).decode())
    assert server.requests[0].headers["authorization"] == f"Basic {spellings[1]}"
    assert not [spelling for spelling in spellings if spelling in log_text(caplog)]


def test_refused_credentials_stop_sending_and_are_told_once(
    server: BadServer, open_to: OpenDelivery, token_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # GIVEN a server that accepts another token only
    server.decide = lambda request: answer(200 if request.headers["authorization"] == "Bearer good" else 401)
    server.start()
    with open_to(server_token_file=token_file) as delivery:
        for number in range(3):
            delivery.put(make_profile(number))
        wait_until(lambda: delivery.statistics().uploader.state is UploaderState.UNAUTHORIZED, "refusal")
        # WHEN the token is renewed
        assert delivery.statistics().spool.n_spooled == 3
        token_file.write_text("good")
        wait_balanced(delivery)
        # THEN everything arrives, and nobody was bothered meanwhile
        assert delivery.statistics().spool.n_sent == 3
        assert delivery.statistics().uploader.state is UploaderState.RUNNING
    assert sum(request.status == 401 for request in server.requests) == 1
    assert sum(record.levelno == logging.ERROR for record in caplog.records) == 1


def test_a_token_file_that_comes_later_is_found(server: BadServer, open_to: OpenDelivery, tmp_path: Path) -> None:
    # GIVEN
    server.start()
    with open_to(server_token_file=tmp_path / "later") as delivery:
        delivery.put(make_profile())
        wait_until(lambda: delivery.statistics().uploader.state is UploaderState.UNAUTHORIZED, "refusal")
        # WHEN
        (tmp_path / "later").write_text(SECRET)
        # THEN
        wait_balanced(delivery)
    assert len(server.requests) == 1


def test_credentials_do_not_follow_a_redirect(server: BadServer, open_to: OpenDelivery, token_file: Path) -> None:
    # GIVEN a server that sends its clients to another one
    with BadServer() as thief:
        thief.start()
        server.decide = lambda request: answer(307, Location=f"{thief.url}/push.v1.PusherService/Push")
        server.start()
        # WHEN
        with open_to(server_token_file=token_file) as delivery:
            delivery.put(make_profile())
            wait_balanced(delivery)
        # THEN
        assert thief.requests == []


def test_the_environment_gives_the_token_and_nothing_else(
    server: BadServer, spool_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # GIVEN the variables and the file that requests would obey by itself
    with BadServer() as proxy:
        proxy.start()
        server.start()
        (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password other\n")
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.setenv("ALL_PROXY", proxy.url)
        monkeypatch.delenv("NO_PROXY", raising=False)
        options = DeliveryOptions(server=server.url, spool_directory=spool_directory)
        # WHEN
        with open_delivery(
            options, "h1", SystemClock(), environment={TOKEN_VARIABLE: SECRET}, policy=IMPATIENT
        ) as delivery:
            delivery.put(make_profile())
            wait_balanced(delivery)
        # THEN
        assert proxy.requests == []
        assert [request.headers["authorization"] for request in server.requests] == [f"Bearer {SECRET}"]


def test_unencrypted_credentials_are_warned_of(token_file: Path, caplog: pytest.LogCaptureFixture) -> None:
    # WHEN
    options = DeliveryOptions(server="http://profiles.internal:4040", server_token_file=token_file)
    make_sink(options, SystemClock(), {}).close()
    # THEN
    assert "unencrypted" in caplog.text


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        pytest.param({"server_tenant": "a\nX-Evil: 1"}, "server_tenant", id="header-injection"),
        pytest.param({"server_ca_file": Path("/nowhere.pem")}, "server_ca_file", id="no-ca-file"),
    ],
)
def test_settings_that_cannot_work_are_refused_at_the_start(settings: dict[str, str], key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        make_sink(DeliveryOptions(**settings), SystemClock(), {})  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PEM file with key and self-signed certificate for 127.0.0.1."""
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
         "-keyout", path, "-out", f"{path}.crt", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True, timeout=60, env={"PATH": os.environ["PATH"]},
    )  # fmt: skip
    path.write_text(path.read_text() + Path(f"{path}.crt").read_text())
    return path


def open_tls(server: BadServer, spool_directory: Path, ca_file: Path | None) -> DeliveryOptions:
    return DeliveryOptions(
        server=server.url.replace("http:", "https:"), spool_directory=spool_directory, server_ca_file=ca_file
    )


def test_a_private_ca_is_trusted_when_named(certificate: Path, spool_directory: Path) -> None:
    # GIVEN a server with a certificate that nobody else has signed
    with BadServer(certificate=certificate) as server:
        server.start()
        options = open_tls(server, spool_directory, Path(f"{certificate}.crt"))
        # WHEN
        with open_delivery(options, "h1", SystemClock(), environment={}, policy=IMPATIENT) as delivery:
            for number in range(3):
                delivery.put(make_profile(number))
            wait_balanced(delivery)
        # THEN
        assert len(server.accepted) == 3


def test_an_unknown_certificate_gets_nothing(certificate: Path, spool_directory: Path, token_file: Path) -> None:
    with BadServer(certificate=certificate) as server:
        server.start()
        options = open_tls(server, spool_directory, None)
        with open_delivery(options, "h1", SystemClock(), environment={}, policy=IMPATIENT) as delivery:
            delivery.put(make_profile())
            wait_until(lambda: delivery.statistics().uploader.n_failures > 1, "tries")
            assert "certificate" in delivery.statistics().uploader.last_error
        assert server.requests == []


def test_a_hanging_tls_server_does_not_hold_up_the_stop(certificate: Path, spool_directory: Path) -> None:
    # GIVEN an exchange that hangs inside TLS
    asked: list[Request] = []

    def decide(request: Request) -> Behaviour:
        asked.append(request)
        return lambda exchange: int(exchange.is_closing.wait()) * 0

    with BadServer(decide, certificate=certificate) as server:
        server.start()
        options = open_tls(server, spool_directory, Path(f"{certificate}.crt"))
        # WHEN it is closed
        with open_delivery(options, "h1", SystemClock(), environment={}, policy=IMPATIENT) as delivery:
            delivery.put(make_profile())
            wait_until(lambda: len(asked) == 1, "a request")
        # THEN the thread has ended (the fixture of all tests looks for left-overs), and the payload is still there
        assert statistics_of(delivery) == 1


def statistics_of(delivery: Delivery) -> int:
    return delivery.statistics().spool.n_spooled


def test_a_server_that_never_shakes_hands_does_not_hold_up_the_stop(server: BadServer, spool_directory: Path) -> None:
    # GIVEN TLS spoken to a server that only listens: it takes the connection and says nothing
    server.decide = lambda request: answer(200)
    server.start()
    options = open_tls(server, spool_directory, None)
    # WHEN / THEN
    with open_delivery(options, "h1", SystemClock(), environment={}, policy=IMPATIENT) as delivery:
        delivery.put(make_profile())
        wait_until(lambda: delivery.statistics().uploader.n_attempts >= 1, "an attempt")
    assert statistics_of(delivery) == 1
