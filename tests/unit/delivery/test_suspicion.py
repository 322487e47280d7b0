"""Suspicion: the payload or the receiver?"""

from __future__ import annotations

from gprof_lite.delivery.suspicion import Suspicion


def failing(key: str, n: int) -> Suspicion[str]:
    suspicion: Suspicion[str] = Suspicion(n_failures=3, defer_s=10.0)
    for _ in range(n):
        suspicion.failed(key, now_s=0.0)
    return suspicion


def test_first_failures_change_nothing() -> None:
    assert failing("poison", 2).to_skip(0.0) == frozenset()


def test_after_some_failures_another_one_is_asked_for() -> None:
    assert failing("poison", 3).to_skip(0.0) == {"poison"}


def test_payload_is_put_off_when_it_fails_beside_one_that_is_taken() -> None:
    # GIVEN
    suspicion = failing("poison", 3)
    # WHEN
    suspicion.succeeded("other")
    is_convicted = suspicion.failed("poison", now_s=100.0)
    # THEN it is skipped for a while
    assert is_convicted
    assert suspicion.next_due_s() == 110.0
    assert suspicion.to_skip(109.9) == {"poison"}
    assert suspicion.to_skip(110.0) == frozenset()


def test_a_receiver_that_came_back_in_between_convicts_nobody() -> None:
    # GIVEN a second opinion that was asked for just as the receiver recovered
    suspicion = failing("innocent", 3)
    suspicion.succeeded("other")
    # WHEN the suspect gets its chance
    assert suspicion.to_skip(0.0) == frozenset()
    suspicion.succeeded("innocent")
    # THEN it is forgotten
    assert not suspicion.failed("innocent", now_s=0.0)
    assert suspicion.n_deferred == 0


def test_receiver_is_to_blame_when_the_other_one_fails_too() -> None:
    # GIVEN
    suspicion = failing("poison", 3)
    # WHEN
    suspicion.failed("other", now_s=0.0)
    # THEN the order is as before
    assert suspicion.to_skip(0.0) == frozenset()
    assert not suspicion.wants_second_opinion


def test_a_success_of_its_own_clears_it() -> None:
    # GIVEN
    suspicion = failing("shaky", 2)
    # WHEN
    suspicion.succeeded("shaky")
    suspicion.failed("shaky", now_s=0.0)
    # THEN counting starts anew
    assert not suspicion.wants_second_opinion


def test_failures_of_different_payloads_are_not_added_up() -> None:
    # GIVEN
    suspicion = failing("one", 2)
    # WHEN
    suspicion.failed("two", now_s=0.0)
    # THEN
    assert suspicion.suspect == "two"
    assert not suspicion.wants_second_opinion


def test_with_nobody_else_to_ask_it_goes_on() -> None:
    # GIVEN
    suspicion = failing("only", 3)
    # WHEN
    suspicion.nobody_else()
    # THEN
    assert suspicion.to_skip(0.0) == frozenset()
