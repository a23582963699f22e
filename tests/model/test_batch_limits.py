"""What an attempt teaches about the size of a webhook's batches."""

import pytest

from shared.model.batch_limits import BatchLimits, Lesson, failed_attempts_after, lesson_of
from shared.model.deliveries import Delivery

BODY_BYTES = 1000
NOTHING = Lesson()


def lesson(
    *,
    status: int | None = None,
    error: str = "",
    count: int = 10,
    limits: BatchLimits = BatchLimits(),  # noqa: B008
    was_reached: bool = True,
) -> Lesson:
    delivery = Delivery(at_ms=0, webhook_id="msg_a", count=count, status=status, error=error, took_ms=1)
    return lesson_of(limits, delivery, body_bytes=BODY_BYTES, last_entry_id="9-0", was_reached=was_reached)


@pytest.mark.parametrize(
    "status", [100, 201, 202, 301, 400, 401, 404, 408, 410, 414, 429, 431, 500, 503, 507]
)
@pytest.mark.parametrize("count", [1, 10])
def test_no_status_but_413_says_anything_about_the_size(status: int, count: int) -> None:
    assert lesson(status=status, count=count) == NOTHING


@pytest.mark.parametrize(
    "error",
    [
        "address-refused",
        "not-resolved",
        "not-connected",
        "tls-failed",
        "closed",
        "bad-answer",
        "not-sendable",
    ],
)
def test_no_error_but_a_time_out_says_anything_about_the_size(error: str) -> None:
    limits = BatchLimits(timed_out="msg_a")

    assert lesson(error=error, limits=limits) == NOTHING


def test_413_halves_the_body() -> None:
    assert lesson(status=413) == Lesson(body_limit_bytes=BODY_BYTES // 2)
    assert lesson(status=413, count=2) == Lesson(body_limit_bytes=BODY_BYTES // 2)


def test_a_single_notification_is_dropped_after_three_refusals() -> None:
    limits, seen = BatchLimits(body_limit_bytes=5), list[Lesson]()
    for _ in range(3):
        seen.append(lesson(status=413, count=1, limits=limits))
        limits = BatchLimits(
            body_limit_bytes=5,
            refused_entry=seen[-1].refused_entry,
            refused_times=seen[-1].refused_times,
        )

    assert [each.drops for each in seen] == [False, False, True]
    assert not any(each.is_smaller for each in seen)


def test_refusals_of_another_notification_do_not_count() -> None:
    limits = BatchLimits(refused_entry="8-0", refused_times=3)

    assert lesson(status=413, count=1, limits=limits) == Lesson(refused_entry="9-0", refused_times=1)


@pytest.mark.parametrize(
    ("timed_out", "count", "was_reached", "expected"),
    [
        ("", 10, True, Lesson(timed_out="msg_a")),
        ("msg_other", 10, True, Lesson(timed_out="msg_a")),
        ("msg_a", 10, True, Lesson(batch_limit=5)),
        ("msg_a", 3, True, Lesson(batch_limit=1)),
        # Nothing to halve: it is retried for as long as the webhook fails.
        ("msg_a", 1, True, NOTHING),
        # No connection: the size had no part in it.
        ("", 10, False, NOTHING),
        ("msg_a", 10, False, NOTHING),
    ],
)
def test_the_second_time_out_in_a_row_halves_the_number(
    timed_out: str, count: int, was_reached: bool, expected: Lesson
) -> None:
    limits = BatchLimits(timed_out=timed_out)

    assert lesson(error="timed-out", count=count, limits=limits, was_reached=was_reached) == expected


@pytest.mark.parametrize(
    ("limit", "count", "took_ms", "expected"),
    [
        (None, 100, 1, None),
        (10, 10, 1, 20),
        (10, 9, 1, None),
        (10, 10, 333, 20),
        (10, 10, 400, None),
        (49, 49, 1, 98),
        (50, 50, 1, 0),
    ],
)
def test_a_full_batch_that_is_accepted_quickly_doubles_the_limit(
    limit: int | None, count: int, took_ms: int, expected: int | None
) -> None:
    limits = BatchLimits(batch_limit=limit)

    assert limits.after_success(count, took_ms=took_ms, timeout_ms=1000, most=100) == expected


@pytest.mark.parametrize(
    ("known", "lesson", "expected"),
    [
        (BatchLimits(), NOTHING, 8),
        (BatchLimits(), Lesson(timed_out="msg_a"), 8),
        (BatchLimits(), Lesson(body_limit_bytes=1), 1),
        (BatchLimits(), Lesson(batch_limit=1), 1),
        (BatchLimits(), Lesson(refused_entry="1-0", refused_times=1), 1),
        (BatchLimits(refused_entry="1-0"), Lesson(refused_entry="1-0", refused_times=2), 8),
        (BatchLimits(refused_entry="1-0"), Lesson(refused_entry="2-0", refused_times=1), 8),
    ],
)
def test_the_backoff_begins_anew_for_a_smaller_batch(
    known: BatchLimits, lesson: Lesson, expected: int
) -> None:
    assert failed_attempts_after(7, known, lesson) == expected
