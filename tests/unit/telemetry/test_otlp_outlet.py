"""What waits for the receiver: batches, retries, halves, bounds."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from gprof_lite.clock import Deadline, FakeClock
from gprof_lite.errors import DeliveryError, Rejected, TooLarge, Transient, Unauthorized
from gprof_lite.stop import StopRequested, StopToken
from gprof_lite.telemetry.events import EventType, MemoryEvent
from gprof_lite.telemetry.otlp import LOGS_PATH, METRICS_PATH, Origin, Receipt
from gprof_lite.telemetry.otlp_outlet import GATHER_S, MAX_BATCH, N_ATTEMPTS, OtlpOutlet, OtlpTarget
from gprof_lite.telemetry.registry import Registry


class FakeReceiver:
    """Takes what ``refuse`` lets it and answers ``receipt``; keeps the ids of the events of each request."""

    def __init__(self, refuse: Callable[[list[str]], DeliveryError | None] = lambda ids: None) -> None:
        self.refuse = refuse
        self.taken: list[list[str]] = []
        self.n_pushes = 0
        self.n_attempts = 0
        self.receipt = Receipt()

    def post(self, path: str, body: bytes, content_type: str, deadline: Deadline, stop: StopToken) -> Receipt:
        if path == METRICS_PATH:
            self.n_pushes += 1
            return self.receipt
        assert path == LOGS_PATH
        self.n_attempts += 1
        ids = [
            next(one.value.string_value for one in record.attributes if one.key == "event_id")
            for record in ExportLogsServiceRequest.FromString(body).resource_logs[0].scope_logs[0].log_records
        ]
        error = self.refuse(ids)
        if error is not None:
            raise error
        self.taken.append(ids)
        return self.receipt

    def close(self) -> None:
        pass


class Report:
    """Counts."""

    def __init__(self) -> None:
        self.n_lost = 0
        self.failed: list[str] = []
        self.receipts: list[tuple[str, Receipt]] = []

    def lost(self, n: int, what: str, why: str) -> None:
        self.n_lost += n

    def requested(self, path: str, error: DeliveryError | None) -> None:
        if error is not None:
            self.failed.append(path)

    def rejected(self, path: str, receipt: Receipt) -> None:
        self.receipts.append((path, receipt))


class Scene:
    """An outlet with a receiver, a report and a clock that only pauses move."""

    def __init__(self, stop: StopToken, capacity: int = 10_000) -> None:
        self.clock = FakeClock()
        self.receiver = FakeReceiver()
        self.report = Report()
        self.pauses: list[float] = []
        self.stop = stop
        self.outlet = OtlpOutlet(
            OtlpTarget(self.receiver, Origin("h", 0)),
            Registry().collect,
            self.report,
            self.clock,
            stop,
            capacity=capacity,
            pause=self.pause,
        )

    def pause(self, seconds: float) -> None:
        self.stop.raise_if_set()
        self.pauses.append(seconds)
        self.clock.advance(seconds)

    def send(self, n: int) -> None:
        self.outlet.offer(events(n))
        self.clock.advance(GATHER_S)
        while self.outlet.n_pending:
            self.outlet.send_due()
            self.clock.advance(GATHER_S)

    @property
    def n_taken(self) -> int:
        return sum(map(len, self.receiver.taken))


def events(n: int) -> list[MemoryEvent]:
    return [MemoryEvent(EventType.KERNEL_FS, "t", 0, "mmap", event_id=str(number)) for number in range(n)]


@pytest.fixture
def stop() -> Iterator[StopToken]:
    with StopToken() as token:
        yield token


@pytest.fixture
def scene(stop: StopToken) -> Scene:
    return Scene(stop)


def test_events_are_gathered_for_a_moment_and_sent_together(scene: Scene) -> None:
    scene.outlet.offer(events(2))
    scene.outlet.send_due()
    assert scene.receiver.taken == []
    scene.clock.advance(GATHER_S)
    scene.outlet.send_due()
    assert scene.receiver.taken == [["0", "1"]]


def test_a_full_batch_goes_at_once(scene: Scene) -> None:
    scene.outlet.offer(events(MAX_BATCH + 1))
    scene.outlet.send_due()
    assert [len(ids) for ids in scene.receiver.taken] == [MAX_BATCH]


def test_metrics_are_pushed_every_interval(scene: Scene) -> None:
    for _ in range(121):
        scene.outlet.send_due()
        scene.clock.advance(1)
    assert scene.receiver.n_pushes == 3


@pytest.mark.parametrize("error", [Transient("busy", status=503), Unauthorized("token", status=401)])
def test_events_are_tried_again_until_taken(scene: Scene, error: DeliveryError) -> None:
    answers = iter([error, error, None])
    scene.receiver.refuse = lambda ids: next(answers)
    scene.send(3)
    assert scene.receiver.taken == [["0", "1", "2"]]
    assert len(scene.pauses) == 2
    assert scene.report.n_lost == 0


def test_what_the_receiver_asks_for_is_waited(scene: Scene) -> None:
    answers = iter([Transient("busy", status=429, retry_after_s=17.0), None])
    scene.receiver.refuse = lambda ids: next(answers)
    scene.send(1)
    assert 17 <= scene.pauses[0] <= 18


def test_attempts_end_and_the_batch_is_counted(scene: Scene) -> None:
    scene.receiver.refuse = lambda ids: Transient("busy", status=500)
    scene.send(3)
    assert scene.receiver.n_attempts == N_ATTEMPTS
    assert scene.report.n_lost == 3
    assert all(seconds <= 31 for seconds in scene.pauses)


def test_what_is_refused_for_good_is_not_tried_again(scene: Scene) -> None:
    scene.receiver.refuse = lambda ids: Rejected("no", status=400)
    scene.send(3)
    assert scene.receiver.n_attempts == 1
    assert scene.report.n_lost == 3


@pytest.mark.parametrize(("n_rejected", "n_lost"), [(2, 2), (3, 3), (1 << 62, 3), (0, 0)])
def test_what_the_receiver_takes_and_does_not_keep_is_counted_and_not_sent_again(
    scene: Scene, n_rejected: int, n_lost: int
) -> None:
    scene.receiver.receipt = Receipt(n_rejected, "too old")
    scene.send(3)
    assert scene.receiver.n_attempts == 1
    assert scene.report.n_lost == n_lost
    assert (LOGS_PATH, scene.receiver.receipt) in scene.report.receipts


def test_data_points_that_are_not_kept_are_told_and_cost_no_event(scene: Scene) -> None:
    scene.receiver.receipt = Receipt(7, "no such tenant")
    scene.outlet.send_due()
    assert scene.report.receipts == [(METRICS_PATH, Receipt(7, "no such tenant"))]
    assert scene.report.n_lost == 0


def test_at_the_end_too_it_is_counted_what_was_not_kept(scene: Scene) -> None:
    scene.outlet.offer(events(5))
    scene.receiver.receipt = Receipt(4, "")
    scene.outlet.send_last(Deadline.after(1, scene.clock), scene.stop)
    assert scene.report.n_lost == 4


def test_a_receiver_that_kept_all_is_not_talked_about(scene: Scene) -> None:
    scene.send(3)
    assert scene.report.receipts == []


def test_too_large_is_halved_until_it_fits_and_only_what_never_fits_is_lost(scene: Scene) -> None:
    # GIVEN a receiver that takes at most 7 at once, and never number 40
    scene.receiver.refuse = lambda ids: TooLarge("large", status=413) if len(ids) > 7 or "40" in ids else None
    # WHEN 100 are sent
    scene.send(100)
    # THEN all others arrive, each once
    arrived = [number for ids in scene.receiver.taken for number in ids]
    assert sorted(map(int, arrived)) == [number for number in range(100) if number != 40]
    assert scene.report.n_lost == 1


def test_queue_is_bounded_and_the_oldest_go(stop: StopToken) -> None:
    scene = Scene(stop, capacity=10)
    scene.outlet.offer(events(25))
    assert (scene.outlet.n_pending, scene.report.n_lost) == (10, 15)
    scene.clock.advance(GATHER_S)
    scene.outlet.send_due()
    assert scene.receiver.taken == [[str(number) for number in range(15, 25)]]


def test_stop_between_two_attempts_keeps_the_batch_for_the_last_one(scene: Scene) -> None:
    def refuse(ids: list[str]) -> DeliveryError:
        scene.stop.set()
        return Transient("busy", status=503)

    # GIVEN a receiver that fails, and a stop meanwhile
    scene.receiver.refuse = refuse
    with pytest.raises(StopRequested):
        scene.send(3)
    assert scene.outlet.n_pending == 3
    # WHEN the last attempt is made and it works again
    scene.receiver.refuse = lambda ids: None
    scene.outlet.send_last(Deadline.after(1, scene.clock), scene.stop)
    # THEN nothing is lost
    assert scene.receiver.taken == [["0", "1", "2"]]
    assert scene.report.n_lost == 0


def test_stop_in_the_middle_of_halves_loses_none(scene: Scene) -> None:
    def refuse(ids: list[str]) -> DeliveryError | None:
        if len(ids) > 2:
            return TooLarge("large", status=413)
        if "4" in ids:
            scene.stop.set()
            return Transient("busy", status=503)
        return None

    scene.receiver.refuse = refuse
    with pytest.raises(StopRequested):
        scene.send(8)
    assert scene.n_taken + scene.outlet.n_pending == 8
    assert scene.report.n_lost == 0


def test_last_attempt_that_fails_counts_all(scene: Scene) -> None:
    scene.outlet.offer(events(1000))
    scene.receiver.refuse = lambda ids: Transient("gone")
    scene.outlet.send_last(Deadline.after(1, scene.clock), scene.stop)
    assert (scene.outlet.n_pending, scene.report.n_lost) == (0, 1000)
