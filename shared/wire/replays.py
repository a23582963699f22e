"""Bodies of resends and replays (docs/protocols/streams.md)."""

from typing import Annotated

from msgspec import Meta

from shared.model import topics
from shared.model.errors import Invalid
from shared.model.events import Event
from shared.model.replays import MOST_PER_S, USUAL_PER_S, Replay, ReplayState
from shared.model.streams import Retained
from shared.wire.models import Closed, Count, Moment
from shared.wire.streams import pattern_error
from shared.wire.times import moment_ms, moment_or_none, moment_text

MOST_PATTERNS = 100
_Pattern = Annotated[str, Meta(min_length=1, max_length=topics.MAX_LENGTH)]


class NewResend(Closed):
    event_id: Annotated[str, Meta(min_length=1, max_length=255)]
    source: Annotated[str, Meta(max_length=2048, description="That of a CloudEvent.")] | None = None


class ResentBody(Closed):
    """The event that was queued once more, by its place in the stream of its topic."""

    id: str
    topic: str
    offset: str


class NewReplayBody(Closed):
    since: Annotated[Moment, Meta(description="Events that were published from then on.")]
    until: Annotated[Moment, Meta(description="And before then; at the most until now.")] | None = None
    topics: Annotated[list[_Pattern], Meta(min_length=1, max_length=MOST_PATTERNS)] | None = None
    per_s: Annotated[int, Meta(ge=1, le=MOST_PER_S, description="Events queued a second.")] | None = (
        USUAL_PER_S
    )


class ReplayBody(Closed):
    """It has `passed` so many of `total` events at the most, and `queued` those that the channel wants."""

    id: Annotated[str, Meta(pattern=r"^rp_[0-9a-f]{32}\Z")]
    state: ReplayState
    since: Moment
    until: Moment
    topics: list[str] | None
    per_s: int
    total: Count
    passed: Count
    queued: Count
    waits_for_queue: Annotated[bool, Meta(description="The queue has too much pending now.")]
    error: str | None
    created_at: Moment
    ended_at: Moment | None


def once_more(retained: Retained) -> Event:
    """The event as it is queued once more: if it has no time, with that at which it was published.

    A receiver would take the time of the replay for that of the event.
    """
    event = retained.event
    return event if event.time else event._replace(time=moment_text(retained.published_ms))


def times_in(posted: NewReplayBody, now_ms: int) -> tuple[int, int]:
    """Since when and until when, in ms. Raises Invalid."""
    since_ms = _ms_in(posted.since, "since")
    until_ms = now_ms if posted.until is None else min(now_ms, _ms_in(posted.until, "until"))
    if since_ms >= until_ms:
        raise Invalid("must be before now, and before `until`", field="since")
    return max(1, since_ms), until_ms


def _ms_in(text: str, field: str) -> int:
    ms = moment_ms(text)
    if ms is None:
        raise Invalid("must be a time with an offset, such as 2026-01-31T12:00:00Z", field=field)
    return ms


def check_patterns(patterns: list[str]) -> None:
    """Raises Invalid."""
    for number, pattern in enumerate(patterns):
        if (wrong := pattern_error(pattern)) is not None:
            raise Invalid(wrong, field=f"topics[{number}]")


def replay_body(replay: Replay) -> ReplayBody:
    new = replay.new
    return ReplayBody(
        id=f"rp_{new.id}",
        state=replay.state,
        since=moment_text(new.since_ms),
        until=moment_text(new.until_ms),
        topics=list(new.topics) or None,
        per_s=new.per_s,
        total=new.total,
        passed=replay.passed,
        queued=replay.done,
        waits_for_queue=replay.waits,
        error=replay.error or None,
        created_at=moment_text(new.created_ms),
        ended_at=moment_or_none(replay.ended_ms),
    )
