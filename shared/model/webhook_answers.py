"""What an answer of a native webhook means, and how long its receiver asks us to wait.

A pure function: the caller brings the time, by Redis' clock (docs/protocols/webhooks.md, "Your answer").
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum, auto

SUCCESS = range(200, 300)
"""The statuses that accept a request to a native webhook."""
_MOST_MS = 24 * 3600 * 1000
_GONE = 410
_WITH_RETRY_AFTER = (429, 503)
_SECONDS = re.compile(r"0*([0-9]+)")
# More digits are more than a day, and Python refuses to read thousands of them.
_MOST_DIGITS = 6
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_CLOCK = r"(?P<hour>\d\d):(?P<minute>\d\d):(?P<second>\d\d)"
_MONTH = rf"(?P<month>{'|'.join(_MONTHS)})"
_SHORT_DAY = r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)"
# RFC 9110, section 5.6.7: the preferred form, and the two obsolete ones that must be understood.
_DATES = (
    re.compile(rf"{_SHORT_DAY}, (?P<day>\d\d) {_MONTH} (?P<year>\d{{4}}) {_CLOCK} GMT", re.ASCII),
    re.compile(
        r"(?:Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday), "
        rf"(?P<day>\d\d)-{_MONTH}-(?P<year>\d\d) {_CLOCK} GMT",
        re.ASCII,
    ),
    re.compile(rf"{_SHORT_DAY} {_MONTH} (?P<day>[ \d]\d) {_CLOCK} (?P<year>\d{{4}})", re.ASCII),
)
# A year of two digits that seems to be so far ahead is one of the century before.
_TOO_FAR_YEARS = 50


class Verdict(Enum):
    ACCEPTED = auto()
    FAILED = auto()
    GONE = auto()
    """The receiver wants no more: the webhook is disabled."""


@dataclass(frozen=True, slots=True)
class Answer:
    """`words`: what was wrong, for the owner of the webhook; '' where the status says it.

    `retry_after_ms`: the receiver wants no request before.
    """

    verdict: Verdict
    words: str = ""
    retry_after_ms: int | None = None

    @property
    def is_accepted(self) -> bool:
        return self.verdict is Verdict.ACCEPTED


def judged(status: int | None, *, location: str = "", retry_after: str = "", now_ms: int = 0) -> Answer:
    """What a response means; without a status there was none."""
    if status is None:
        return Answer(Verdict.FAILED)
    if status in SUCCESS:
        return Answer(Verdict.ACCEPTED)
    if 300 <= status < 400:
        return Answer(Verdict.FAILED, redirect(location))
    if status == _GONE:
        return Answer(Verdict.GONE, "410 Gone: an event that is answered so disables the webhook")
    if status in _WITH_RETRY_AFTER and (wait_ms := retry_after_ms(retry_after, now_ms=now_ms)) is not None:
        return Answer(Verdict.FAILED, f"asked to wait for {-(-wait_ms // 1000)} s", wait_ms)
    return Answer(Verdict.FAILED)


def redirect(location: str) -> str:
    """What a redirect means for a webhook, in words."""
    to = f"redirect to {location}" if location else "redirect without a Location"
    return f"{to}: no redirect is followed, so set the channel's URL to the final one"


def retry_after_ms(text: str, *, now_ms: int) -> int | None:
    """How long a Retry-After asks to wait: 0 to a day. None for what is neither seconds nor an HTTP date."""
    text = text.strip(" \t")
    if (seconds := _SECONDS.fullmatch(text)) is not None:
        return min(int(seconds[1]) * 1000, _MOST_MS) if len(seconds[1]) <= _MOST_DIGITS else _MOST_MS
    at_ms = _date_ms(text, now_ms=now_ms)
    return None if at_ms is None else min(max(at_ms - now_ms, 0), _MOST_MS)


def _date_ms(text: str, *, now_ms: int) -> int | None:
    for form in _DATES:
        if (found := form.fullmatch(text)) is not None:
            break
    else:
        return None
    year = int(found["year"])
    if len(found["year"]) == 2:
        this_year = datetime.fromtimestamp(now_ms / 1000, UTC).year
        ahead = (year - this_year) % 100
        year = this_year + (ahead - 100 if ahead > _TOO_FAR_YEARS else ahead)
    # A leap second is the first of the next minute.
    second = min(int(found["second"]), 59)
    try:
        at = datetime(
            year,
            _MONTHS.index(found["month"]) + 1,
            int(found["day"]),
            int(found["hour"]),
            int(found["minute"]),
            second,
            tzinfo=UTC,
        )
    except ValueError:
        return None
    return round(at.timestamp()) * 1000
