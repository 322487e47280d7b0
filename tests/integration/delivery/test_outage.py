"""A server that is down, comes back, or misbehaves: collection goes on and nothing is lost."""

from __future__ import annotations

import gzip
import random
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from gprof_lite.clock import Deadline
from gprof_lite.delivery.uploader import UploaderState
from gprof_lite.formats.collapsed import parse_collapsed
from gprof_lite.stop import StopToken
from tests.integration.delivery.bad_server import (
    BadServer,
    Behaviour,
    OpenDelivery,
    Request,
    answer,
    at_first,
    cut_before_answer,
    cut_in_headers,
    endless_headers,
    garbage,
    hang,
    make_profile,
    reset,
    slow_body,
    slow_headers,
    wait_balanced,
    wait_until,
    wrong_length,
)


def test_twenty_windows_of_an_outage_arrive_newest_first(server: BadServer, open_to: OpenDelivery) -> None:
    # GIVEN a server that refuses connections while twenty windows are made
    profiles = [make_profile(number) for number in range(20)]
    with open_to() as delivery:
        for profile in profiles:
            assert delivery.put(profile)
        wait_until(lambda: delivery.statistics().uploader.n_failures > 3, "tries")
        assert delivery.statistics().spool.n_spooled == 20
        assert delivery.statistics().uploader.state is UploaderState.BACKOFF
        # WHEN it comes back
        server.start()
        wait_balanced(delivery)
    # THEN all are there, the newest first, as they were measured
    assert [request.profile for request in server.accepted] == profiles[::-1]


def test_a_server_that_comes_and_goes_does_not_flood_the_log(
    server: BadServer, open_to: OpenDelivery, caplog: pytest.LogCaptureFixture
) -> None:
    # GIVEN
    server.decide = at_first(*[answer(503), answer(200)] * 10)
    server.start()
    # WHEN
    with open_to() as delivery:
        for number in range(10):
            delivery.put(make_profile(number))
        wait_balanced(delivery)
        assert delivery.statistics().uploader.n_failures == 10
    # THEN
    assert caplog.text.count("upload failed") == 1


def test_what_was_spooled_is_sent_after_a_restart(server: BadServer, open_to: OpenDelivery) -> None:
    # GIVEN an agent that ended while the server was down
    profiles = [make_profile(number) for number in range(3)]
    with open_to() as delivery:
        for profile in profiles:
            delivery.put(profile)
    # WHEN
    server.start()
    with open_to() as delivery:
        wait_balanced(delivery)
        assert delivery.statistics().spool.n_recovered == 3
    # THEN
    assert [request.profile for request in server.accepted] == profiles[::-1]


@pytest.mark.parametrize(
    "behaviour",
    [
        *[pytest.param(answer(status), id=str(status)) for status in (408, 425, 429, 500, 502, 503, 504)],
        *[
            pytest.param(behaviour, id=behaviour.__name__)
            for behaviour in (cut_before_answer, reset, garbage, endless_headers)
        ],
    ],
)
def test_what_may_pass_is_retried(server: BadServer, open_to: OpenDelivery, behaviour: Behaviour) -> None:
    # GIVEN a server that does it twice
    server.decide = at_first(behaviour, behaviour)
    server.start()
    profile = make_profile()
    # WHEN
    with open_to() as delivery:
        delivery.put(profile)
        wait_balanced(delivery)
        # THEN it arrives, under the same id each time
        assert delivery.statistics().uploader.n_failures == 2
        assert delivery.statistics().uploader.last_error == ""
    assert len(server.requests) == 3
    assert len({request.payload_id for request in server.requests}) == 1
    assert server.requests[-1].profile == profile


@pytest.mark.parametrize("status", [301, 302, 307, 400, 404, 405, 415, 422])
def test_what_is_refused_goes_to_quarantine_with_the_words(
    server: BadServer, open_to: OpenDelivery, spool_directory: Path, status: int
) -> None:
    # GIVEN
    words = b'{"code":"invalid_argument","message":"not_in_ingestion_window"}'
    server.decide = lambda request: answer(status, words, Location="http://127.0.0.1:1/steal?a=b")
    server.start()
    # WHEN
    with open_to() as delivery:
        delivery.put(make_profile())
        wait_balanced(delivery)
        # THEN it was sent once, nothing was followed, and somebody can read why
        assert delivery.statistics().spool.n_quarantined == 1
    assert len(server.requests) == 1
    (why,) = (spool_directory / "quarantine").glob("*.why")
    assert ("127.0.0.1" if status < 400 else "not_in_ingestion_window") in why.read_text()
    assert "steal" not in why.read_text()


@pytest.mark.parametrize(
    "behaviour",
    [pytest.param(behaviour, id=behaviour.__name__) for behaviour in (cut_in_headers, wrong_length)],
)
def test_a_success_is_one_however_the_answer_ends(
    server: BadServer, open_to: OpenDelivery, behaviour: Behaviour
) -> None:
    # GIVEN the status has arrived, so the server has the payload: once more would count twice
    server.decide = lambda request: behaviour
    server.start()
    # WHEN
    with open_to() as delivery:
        delivery.put(make_profile())
        wait_balanced(delivery)
        assert delivery.statistics().spool.n_sent == 1
    # THEN
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "behaviour", [pytest.param(behaviour, id=behaviour.__name__) for behaviour in (hang, slow_headers, slow_body)]
)
def test_an_attempt_ends_by_its_deadline(server: BadServer, open_to: OpenDelivery, behaviour: Behaviour) -> None:
    # GIVEN a server that keeps the first request busy for minutes, byte by byte
    server.decide = at_first(behaviour)
    server.start()
    # WHEN
    with open_to(upload_timeout_s=0.3) as delivery:
        delivery.put(make_profile())
        # THEN
        wait_balanced(delivery)
        assert delivery.statistics().uploader.n_failures == 1


@pytest.mark.parametrize(
    "behaviour", [pytest.param(behaviour, id=behaviour.__name__) for behaviour in (hang, slow_headers, slow_body)]
)
def test_a_slow_upload_does_not_hold_up_the_stop(
    server: BadServer, open_to: OpenDelivery, behaviour: Behaviour
) -> None:
    # GIVEN an upload that would take its whole 60 s
    server_is_asked = threading.Event()

    def decide(request: Request) -> Behaviour:
        server_is_asked.set()
        return behaviour

    server.decide = decide
    server.start()
    with open_to(upload_timeout_s=60.0) as delivery:
        delivery.put(make_profile())
        assert server_is_asked.wait(20.0)
        began_s = time.monotonic()
    # WHEN the delivery is closed THEN it has ended, and the payload is there for the next start
    assert time.monotonic() - began_s < 5.0
    with open_to() as delivery:
        assert delivery.statistics().spool.n_recovered == 1


def test_a_connect_that_hangs_does_not_hold_up_the_stop(server: BadServer, open_to: OpenDelivery) -> None:
    # GIVEN a listener that never accepts and whose queue is full: the kernel leaves new connections without an answer
    with full_listener() as port, open_to(server=f"http://127.0.0.1:{port}", upload_timeout_s=60.0) as delivery:
        delivery.put(make_profile())
        wait_until(lambda: delivery.statistics().uploader.n_attempts == 1, "an attempt")
        time.sleep(0.1)
        began_s = time.monotonic()
    # WHEN it is closed THEN it has ended long before the connect timeout
    assert time.monotonic() - began_s < 3.0


def test_an_answer_of_429_waits_as_long_as_it_is_asked_to(server: BadServer, open_to: OpenDelivery) -> None:
    # GIVEN
    server.decide = at_first(answer(429, Retry_After="1"))
    server.start()
    began_s = time.monotonic()
    # WHEN
    with open_to() as delivery:
        delivery.put(make_profile())
        wait_balanced(delivery)
    # THEN
    assert time.monotonic() - began_s >= 1.0


def test_too_large_is_halved_until_it_fits(server: BadServer, open_to: OpenDelivery) -> None:
    # GIVEN a server that takes up to seven stacks at a time
    server.decide = lambda request: answer(413 if len(request.profile.stacks) > 7 else 200)
    server.start()
    profile = make_profile(n_stacks=50)
    # WHEN
    with open_to() as delivery:
        delivery.put(profile)
        wait_balanced(delivery)
        statistics = delivery.statistics().spool
    # THEN the parts are the whole, each under an id of its own
    parts = {stack: weight for request in server.accepted for stack, weight in request.profile.stacks.items()}
    assert parts == profile.stacks
    assert sum(len(request.profile.stacks) for request in server.accepted) == 50
    assert len({request.payload_id for request in server.accepted}) == len(server.accepted) == statistics.n_made


def test_one_stack_that_is_too_large_goes_to_quarantine(server: BadServer, open_to: OpenDelivery) -> None:
    # GIVEN
    server.decide = lambda request: answer(413)
    server.start()
    # WHEN
    with open_to() as delivery:
        delivery.put(make_profile(n_stacks=2))
        wait_balanced(delivery)
        # THEN
        assert delivery.statistics().spool.n_quarantined == 2


def test_over_16_000_stacks_are_split_before_they_are_sent(server: BadServer, open_to: OpenDelivery) -> None:
    # GIVEN
    server.start()
    profile = make_profile(n_stacks=16_001)
    # WHEN
    with open_to() as delivery:
        delivery.put(profile)
        wait_balanced(delivery)
    # THEN
    assert [len(request.profile.stacks) for request in server.requests] == [8000, 8001]
    assert sum(request.profile.total for request in server.requests) == profile.total


@pytest.mark.parametrize("others", [0, 2])
def test_a_429_again_and_again_is_taken_for_a_burst_limit(
    server: BadServer, open_to: OpenDelivery, others: int
) -> None:
    # GIVEN a server whose burst is smaller than one payload
    server.decide = lambda request: answer(429 if len(request.profile.stacks) > 7 else 200)
    server.start()
    large = replace(make_profile(50), stacks={("shop", sha256(b"%d" % stack).hexdigest()): 1 for stack in range(20)})
    # WHEN
    with open_to() as delivery:
        for number in range(others):
            delivery.put(make_profile(number))
        delivery.put(large)
        wait_balanced(delivery)
    # THEN it arrives in parts
    parts = [request.profile for request in server.accepted if len(request.profile.stacks) > 2]
    assert sum(part.total for part in parts) == large.total


def test_a_small_payload_is_not_halved_by_429(server: BadServer, open_to: OpenDelivery) -> None:
    # GIVEN a server that is overloaded for a while
    server.decide = at_first(*[answer(429)] * 20)
    server.start()
    # WHEN
    with open_to() as delivery:
        delivery.put(make_profile(n_stacks=2))
        wait_balanced(delivery)
        # THEN
        assert delivery.statistics().spool.n_split == 0


def test_one_poisonous_payload_does_not_hold_up_the_others(server: BadServer, open_to: OpenDelivery) -> None:
    # GIVEN a server that fails on the newest payload each time
    server.decide = lambda request: answer(500 if request.profile.labels["service_name"] == "poison" else 200)
    server.start()
    # WHEN
    with open_to() as delivery:
        delivery.put(make_profile(50, service="poison"))
        for number in range(5):
            delivery.put(make_profile(number))
        # THEN the others are sent, and it stays
        wait_balanced(delivery, n_left=1)
        assert delivery.statistics().spool.n_sent == 5
        assert delivery.statistics().spool.n_quarantined == 0


def test_a_payload_that_was_put_off_is_tried_again(server: BadServer, open_to: OpenDelivery) -> None:
    # GIVEN one that makes the server fail until that is mended
    is_mended = threading.Event()

    def decide(request: Request) -> Behaviour:
        is_poison = request.profile.labels["service_name"] == "poison"
        return answer(500 if is_poison and not is_mended.is_set() else 200)

    server.decide = decide
    server.start()
    with open_to() as delivery:
        delivery.put(make_profile(50, service="poison"))
        delivery.put(make_profile(1))
        wait_until(lambda: delivery.statistics().uploader.n_deferred == 1, "put off")
        # WHEN
        is_mended.set()
        # THEN
        wait_balanced(delivery)
        assert delivery.statistics().spool.n_sent == 2


def test_a_broken_file_costs_only_itself(server: BadServer, open_to: OpenDelivery, spool_directory: Path) -> None:
    # GIVEN payloads on disk, one of them damaged
    with open_to() as delivery:
        for number in range(3):
            delivery.put(make_profile(number))
    damaged = sorted(spool_directory.glob("*.collapsed.gz"))[1]
    damaged.write_bytes(b"\x1f\x8b garbage")
    server.start()
    # WHEN
    with open_to() as delivery:
        wait_balanced(delivery)
        # THEN
        assert delivery.statistics().spool.n_quarantined == 1
        assert delivery.statistics().spool.n_sent == 2
        assert delivery.statistics().uploader.n_crashes == 0


@pytest.mark.parametrize("seed", range(6))
def test_everything_adds_up_whatever_the_server_does(
    server: BadServer, open_to: OpenDelivery, spool_directory: Path, seed: int
) -> None:
    # GIVEN a server that does anything, sometimes what it should
    chance = random.Random(seed)
    lock = threading.Lock()
    statuses = [200, 200, 200, 204, 301, 400, 404, 413, 418, 422, 429, 500, 503]
    bad: list[Behaviour] = [
        cut_before_answer, cut_in_headers, reset, garbage, wrong_length, endless_headers, hang, slow_headers, slow_body
    ]  # fmt: skip
    behaved = threading.Event()

    def decide(request: Request) -> Behaviour:
        with lock:
            if behaved.is_set() or chance.random() < 0.3:
                return answer(200)
            return chance.choice(bad) if chance.random() < 0.4 else answer(chance.choice(statuses))

    server.decide = decide
    server.start()
    profiles = [make_profile(number, n_stacks=chance.choice([1, 5, 30])) for number in range(12)]
    # WHEN
    with open_to(upload_timeout_s=0.15) as delivery:
        for profile in profiles:
            delivery.put(profile)
            statistics = delivery.statistics().spool
            assert statistics.balance == 0
        time.sleep(1.0)
        behaved.set()
        wait_balanced(delivery)
        statistics = delivery.statistics().spool
    # THEN each payload was taken or set aside, and together they are what was measured
    assert statistics.n_dropped == 0
    assert statistics.n_made == statistics.n_sent + statistics.n_quarantined
    taken = [request.profile for request in server.requests if request.status in (200, 204)]
    aside = [parse_collapsed(lines_of(path)) for path in (spool_directory / "quarantine").glob("*.gz")]
    arrived = {(part.window, stack): weight for part in (*taken, *aside) for stack, weight in part.stacks.items()}
    made = {(profile.window, stack): weight for profile in profiles for stack, weight in profile.stacks.items()}
    assert arrived == made


def lines_of(path: Path) -> list[str]:
    return gzip.decompress(path.read_bytes()).decode().splitlines()


def test_flush_sends_the_last_window(server: BadServer, open_to: OpenDelivery) -> None:
    # GIVEN
    server.start()
    with StopToken() as abort, open_to() as delivery:
        for number in range(5):
            delivery.put(make_profile(number))
        # WHEN / THEN
        assert delivery.flush(Deadline.after(20.0), abort)
    assert any(request.profile.stacks[("shop", "work_0")] == 4001 for request in server.accepted)


def test_flush_does_not_wait_for_a_server_that_is_down(server: BadServer, open_to: OpenDelivery) -> None:
    with StopToken() as abort, open_to() as delivery:
        delivery.put(make_profile())
        assert not delivery.flush(Deadline.after(60.0), abort)
        assert delivery.statistics().spool.n_spooled == 1


def test_flush_ends_when_told_to(server: BadServer, open_to: OpenDelivery) -> None:
    # GIVEN
    server.decide = lambda request: hang
    server.start()
    with StopToken() as abort, open_to(upload_timeout_s=60.0) as delivery:
        delivery.put(make_profile())
        abort.set()
        # WHEN / THEN
        assert not delivery.flush(Deadline.after(60.0), abort)


@contextmanager
def full_listener() -> Iterator[int]:
    """A port whose queue of connections is full, so that the next connect gets no answer."""
    with ExitStack() as sockets:
        listener = sockets.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        while True:
            client = sockets.enter_context(socket.socket())
            client.settimeout(0.2)
            try:
                client.connect(listener.getsockname())
            except TimeoutError:
                break
        yield listener.getsockname()[1]
