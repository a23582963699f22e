"""A reason that stays the same is logged once, and again after half a minute."""

import pytest

from shared.redis.reminders import Reminders, shortened


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr("shared.redis.reminders.time.monotonic", lambda: now[0])
    return now


def test_a_reason_is_due_once_in_half_a_minute(clock: list[float]) -> None:
    reasons = Reminders()
    assert reasons.is_due("ResponseError: DENIED")
    assert reasons.is_due("TimeoutError: no reply")
    assert not reasons.is_due("ResponseError: DENIED"), "however they alternate"
    assert not reasons.is_due("ConnectionError: DENIED"), "the class is chance"
    clock[0] += 30
    assert reasons.is_due("ResponseError: DENIED")


def test_after_a_success_every_reason_is_new(clock: list[float]) -> None:
    reasons = Reminders()
    assert reasons.is_due("a: b")
    reasons.forget()
    assert reasons.is_due("a: b")


def test_reasons_that_always_differ_cost_no_memory(clock: list[float]) -> None:
    reasons = Reminders()
    for number in range(1000):
        assert reasons.is_due(f"a: {number}")
    assert len(vars(reasons)["_logged_s"]) <= 16


def test_long_texts_become_one_short_line() -> None:
    assert shortened("a\nb") == "a b"
    assert len(shortened("x" * 1000)) == 300
