"""Bodies of rules of streams, and of events from a stream (docs/protocols/streams.md)."""

from collections.abc import Sequence
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

from shared.model import topics
from shared.model.account_channels import shown_id
from shared.model.errors import Invalid
from shared.model.streams import (
    BEGINNING,
    NEVER_RETAINED,
    Keep,
    NotRecovered,
    Resumed,
    Retained,
    StreamRule,
    StreamRules,
    StreamState,
)
from shared.wire.cloudevents import Attributes, attributes_shown
from shared.wire.models import Closed, Count, Moment
from shared.wire.times import moment_text

MOST_RULES = 100
MOST_PATTERNS = 100
_Pattern = Annotated[str, Meta(min_length=1, max_length=topics.MAX_LENGTH, examples=["orders.#"])]


class KeepBody(Closed):
    """What is left out is as much as the installation allows."""

    count: Annotated[int, Meta(ge=1, description="How many events of each topic.")] | None = None
    age_s: Annotated[int, Meta(ge=1, description="How old an event may become.")] | None = None


class StreamRuleBody(Closed):
    topics: Annotated[list[_Pattern], Meta(min_length=1, max_length=MOST_PATTERNS)]
    keep: KeepBody | None = None


StreamRulesBody = Annotated[
    list[StreamRuleBody],
    Meta(max_length=MOST_RULES, description="The first rule that matches a topic counts."),
]


class RetainedBody(Closed):
    """An event in the stream of its topic. `name` and `time` are null if the publisher gave none."""

    id: str
    topic: str
    offset: Annotated[str, Meta(description="Its place in the stream of its topic.")]
    published_at: Moment
    name: str | None
    time: str | None
    data: Annotated[msgspec.Raw, Meta(description="As it was published.")]
    to: Annotated[str, Meta(description="The one channel that it was for.")] | UnsetType = UNSET
    customer: str | UnsetType = UNSET
    attributes: Attributes | UnsetType = UNSET


_Offset = Annotated[
    str, Meta(pattern=r"^(0|[1-9][0-9]{0,14})-(0|[1-9][0-9]{0,14})\Z", description="The place of an event.")
]
_Epoch = Annotated[str, Meta(description="Another after a purge or a loss; '' before the first event.")]


class StreamBody(Closed):
    """What is retained of a topic. Offsets are null where there is no such event."""

    topic: str
    epoch: _Epoch
    first: Annotated[_Offset | None, Meta(description="The first event to be had.")]
    last: Annotated[_Offset | None, Meta(description="The last event ever.")]
    trimmed: Annotated[_Offset | None, Meta(description="The last event that is gone.")]
    reason: Annotated[NotRecovered | None, Meta(description="Why it is gone.")]
    events: Count
    bytes: Count
    readers: Annotated[Count, Meta(description="Readers on all edges, a few seconds old.")]
    keep: Annotated[KeepBody | None, Meta(description="By the rules now; null when none names the topic.")]


class StreamEventsBody(Closed):
    """A page of a stream. Without `recovered` something is missing before these events, for that reason."""

    epoch: _Epoch
    recovered: bool
    reason: NotRecovered | None
    first: Annotated[_Offset | None, Meta(description="The first event to be had.")]
    last: Annotated[_Offset | None, Meta(description="The last event ever.")]
    events: list[RetainedBody]
    next_after: Annotated[_Offset, Meta(description="`after` of the next page; `last` at the end.")]


def rules_in(posted: Sequence[StreamRuleBody], limit: Keep) -> list[StreamRule]:
    """Raises Invalid, naming the field."""
    return [_rule(rule, f"[{number}]", limit) for number, rule in enumerate(posted)]


def pattern_error(pattern: str) -> str | None:
    """What is wrong with a pattern for topics that may be retained."""
    if (wrong := topics.pattern_error(pattern)) is not None:
        return wrong
    first = topics.words(pattern)[0]
    return f"begins with the word {first}: such topics have no stream" if first in NEVER_RETAINED else None


def _rule(posted: StreamRuleBody, at: str, limit: Keep) -> StreamRule:
    for number, pattern in enumerate(posted.topics):
        wrong = pattern_error(pattern)
        if wrong is not None:
            raise Invalid(wrong, field=f"{at}.topics[{number}]")
    keep = posted.keep or KeepBody()
    count, age_ms = keep.count or limit.most, keep.age_s * 1000 if keep.age_s else limit.age_ms
    if count > limit.most:
        raise Invalid(f"must be at most {limit.most}", field=f"{at}.keep.count")
    if age_ms > limit.age_ms:
        raise Invalid(f"must be at most {limit.age_ms // 1000}", field=f"{at}.keep.age_s")
    return StreamRule(posted.topics, Keep(count, age_ms))


def rules_body(rules: StreamRules) -> list[StreamRuleBody]:
    return [StreamRuleBody(list(rule.patterns), _keep_body(rule.keep)) for rule in rules.rules]


def _keep_body(keep: Keep) -> KeepBody:
    return KeepBody(keep.most, keep.age_ms // 1000)


def stream_body(topic: str, state: StreamState | None, *, keep: Keep | None, readers: int) -> StreamBody:
    shown = None if keep is None else _keep_body(keep)
    if state is None:
        return StreamBody(topic, "", None, None, None, None, 0, 0, readers, shown)
    return StreamBody(
        topic=topic,
        epoch=state.epoch,
        first=state.first or None,
        last=state.last,
        trimmed=state.trimmed or None,
        reason=state.reason,
        events=state.length,
        bytes=state.size_bytes,
        readers=readers,
        keep=shown,
    )


def stream_events_body(resumed: Resumed) -> StreamEventsBody:
    return StreamEventsBody(
        epoch=resumed.epoch,
        recovered=resumed.reason is None,
        reason=resumed.reason,
        first=resumed.first or None,
        last=resumed.last if resumed.epoch and resumed.last != BEGINNING else None,
        events=[retained_body(each, to_native=False) for each in resumed.events],
        next_after=resumed.until,
    )


def retained_body(retained: Retained, *, to_native: bool) -> RetainedBody:
    """`to_native`: the one channel that it was for is native."""
    event = retained.event
    to = event.to and (shown_id(event.to) if to_native else event.to)
    return RetainedBody(
        id=event.id,
        topic=event.topic,
        offset=retained.offset,
        published_at=moment_text(retained.published_ms),
        name=event.name or None,
        time=event.time or None,
        data=msgspec.Raw(event.data),
        to=to or UNSET,
        customer=event.customer or UNSET,
        attributes=attributes_shown(event.attributes),
    )
