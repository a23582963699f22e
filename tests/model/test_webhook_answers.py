"""What answers of a native webhook mean, as tables."""

from datetime import UTC, datetime

import pytest

from shared.model.webhook_answers import Verdict, judged, retry_after_ms

# A Sunday.
NOW_MS = round(datetime(1994, 11, 6, 8, 49, 37, tzinfo=UTC).timestamp() * 1000)
DAY_MS = 24 * 3600 * 1000


@pytest.mark.parametrize("status", [200, 201, 202, 203, 204, 205, 206, 226, 250, 299])
def test_any_2xx_is_success(status: int) -> None:
    assert judged(status).verdict is Verdict.ACCEPTED
    assert judged(status, retry_after="60", location="/x").retry_after_ms is None


@pytest.mark.parametrize(
    "status", [None, 100, 199, 400, 401, 404, 408, 409, 413, 422, 429, 500, 502, 503, 504, 999]
)
def test_anything_else_has_failed(status: int | None) -> None:
    assert judged(status).verdict is Verdict.FAILED


@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 307, 308, 399])
def test_a_redirect_has_failed_and_says_so(status: int) -> None:
    answer = judged(status, location="https://example.com/new")

    assert answer.verdict is Verdict.FAILED
    assert "redirect to https://example.com/new" in answer.words
    assert "no redirect is followed" in answer.words
    assert "redirect without a Location:" in judged(status).words


def test_410_says_that_there_shall_be_no_more() -> None:
    assert judged(410, retry_after="60").verdict is Verdict.GONE


@pytest.mark.parametrize(
    ("status", "wait_ms"), [(429, 7000), (503, 7000), (500, None), (502, None), (301, None), (413, None)]
)
def test_only_429_and_503_are_asked_when_to_retry(status: int, wait_ms: int | None) -> None:
    assert judged(status, retry_after="7", now_ms=NOW_MS).retry_after_ms == wait_ms


@pytest.mark.parametrize(
    ("text", "wait_ms"),
    [
        ("0", 0),
        ("1", 1000),
        (" 120\t", 120_000),
        ("007", 7000),
        ("86400", DAY_MS),
        ("86401", DAY_MS),
        ("9999999999", DAY_MS),
        ("99999999999", DAY_MS),
        ("9" * 8000, DAY_MS),
        ("0" * 8000 + "7", 7000),
        ("0" * 8000, 0),
        # The three forms of a date, in the same second.
        ("Sun, 06 Nov 1994 08:49:47 GMT", 10_000),
        ("Sunday, 06-Nov-94 08:49:47 GMT", 10_000),
        ("Sun Nov  6 08:49:47 1994", 10_000),
        ("Sun Nov 06 08:49:47 1994", 10_000),
        # In the past, now, and far ahead.
        ("Sun, 06 Nov 1994 08:49:37 GMT", 0),
        ("Sat, 05 Nov 1994 08:49:37 GMT", 0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
        ("Mon, 07 Nov 1994 08:49:37 GMT", DAY_MS),
        ("Fri, 31 Dec 9999 23:59:59 GMT", DAY_MS),
        # The year of two digits: within fifty years ahead, else in the past.
        ("Friday, 06-Nov-44 08:49:37 GMT", DAY_MS),
        ("Saturday, 06-Nov-45 08:49:37 GMT", 0),
        # A leap second, and the 29th of February.
        ("Sun, 06 Nov 1994 08:49:60 GMT", 22_000),
        ("Thu, 29 Feb 1996 00:00:00 GMT", DAY_MS),
    ],
)
def test_retry_after(text: str, wait_ms: int) -> None:
    assert retry_after_ms(text, now_ms=NOW_MS) == wait_ms


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "soon", "-1", "+1", "1.5", "1e3", "0x10", "1 s", "10, 20", "1;2", "١٢"),
        *("Sun, 06 Nov 1994 08:49:47 CET", "Sun, 06 Nov 1994 08:49:47 +0000", "Sun, 6 Nov 1994 08:49:47 GMT"),
        *("1994-11-06T08:49:47Z", "Sun, 31 Feb 1994 08:49:47 GMT", "Thu, 29 Feb 1995 00:00:00 GMT"),
        *("Sun, 06 Nov 1994 24:49:47 GMT", "Sun, 06 Nov 1994 08:60:47 GMT", "Sun, 00 Nov 1994 08:49:47 GMT"),
        *("Sun, 06 Nov 0000 08:49:47 GMT", "sun, 06 nov 1994 08:49:47 gmt", "Sun Nov  6 08:49:47 1994 GMT"),
        "Sun, 06 Nov 1994 08:49:47 GMT, 10",
    ],
)
def test_what_is_no_retry_after_is_ignored(text: str) -> None:
    assert retry_after_ms(text, now_ms=NOW_MS) is None
