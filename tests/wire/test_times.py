"""Times as RFC 3339 texts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.wire.times import moment_ms, moment_text

NOON = 1_769_860_800_000

VALID = {
    "2026-01-31T12:00:00Z": NOON,
    "2026-01-31t12:00:00z": NOON,
    "2026-01-31 12:00:00+00:00": NOON,
    "2026-01-31T14:30:00+02:30": NOON,
    "2026-01-31T11:00:00-01:00": NOON,
    "2026-01-31T12:00:00.5Z": NOON + 500,
    "2026-01-31T12:00:00.123456789Z": NOON + 123,
    "2024-02-29T00:00:00Z": 1_709_164_800_000,
    "9999-12-31T23:59:59Z": 253_402_300_799_000,
}
INVALID = [
    "",
    "now",
    "2026-01-31",
    "2026-01-31T12:00:00",
    "2026-01-31T12:00Z",
    "2026-13-01T00:00:00Z",
    "2026-02-29T00:00:00Z",
    "2026-01-31T24:00:00Z",
    "2026-01-31T12:00:60Z",
    "2026-01-31T12:00:00+2:00",
    "2026-01-31T12:00:00+99:00",
    "2026-W05-6T12:00:00Z",
    "20260131T120000Z",
    "2026-01-31T12:00:00Z\n",
    "٢٠٢٦-01-31T12:00:00Z",
    "9999-12-31T23:59:59-01:00",
    "0001-01-01T00:00:00+01:00",
    "1769860800",
]


@pytest.mark.parametrize(("text", "ms"), VALID.items())
def test_valid_time(text: str, ms: int) -> None:
    assert moment_ms(text) == ms


@pytest.mark.parametrize("text", INVALID)
def test_invalid_time(text: str) -> None:
    assert moment_ms(text) is None


@given(st.integers(min_value=0, max_value=253_402_300_799_999))
def test_round_trip(ms: int) -> None:
    assert moment_ms(moment_text(ms)) == ms


@given(st.text())
def test_any_text_is_parsed_or_refused(text: str) -> None:
    moment_ms(text)
