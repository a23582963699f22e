"""Bodies of fetches from pull channels, their acks and nacks (docs/protocols/channels.md)."""

from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

from shared.model.events import Notification
from shared.wire.cloudevents import Attributes, attributes_shown
from shared.wire.models import Closed, Moment, rule
from shared.wire.times import moment_text

MOST_EVENTS = 100
USUAL_EVENTS = 10
LONGEST_WAIT_S = 30
_NUMBER = "(0|[1-9][0-9]{0,14})"
Entry = Annotated[
    str,
    Meta(
        pattern=rule(rf"^{_NUMBER}-{_NUMBER}\Z", "must be the `entry` of an event"),
        examples=["1795867200000-0"],
    ),
]
_Lease = Annotated[
    str, Meta(min_length=1, max_length=64, description="`lease` of the fetch that got the events.")
]


class NewFetch(Closed):
    max: Annotated[int, Meta(ge=1, le=MOST_EVENTS)] | None = USUAL_EVENTS
    wait_s: (
        Annotated[
            float,
            Meta(ge=0, le=LONGEST_WAIT_S, description="How long to wait if there is no event."),
        ]
        | None
    ) = 0


class FetchedEvent(Closed):
    """`name` and `time` are null if the publisher gave none; only a CloudEvent has `attributes`."""

    entry: Annotated[str, Meta(description="Its place in the queue, for acks and nacks.")]
    id: str
    topic: str
    name: str | None
    time: str | None
    data: Annotated[msgspec.Raw, Meta(description="As it was published.")]
    attributes: Attributes | UnsetType = UNSET


class FetchedBody(Closed):
    events: Annotated[list[FetchedEvent], Meta(max_length=MOST_EVENTS)]
    lease: Annotated[str | None, Meta(description="For the ack or nack of these events; null without any.")]
    ack_by: Annotated[Moment | None, Meta(description="Afterwards another fetch may get them.")]


class NewAck(Closed):
    lease: _Lease
    until: Entry


class NewNack(Closed):
    lease: _Lease
    entry: Entry
    delay_s: Annotated[float, Meta(ge=0, le=3600)] | None = 0


def fetched_body(notifications: list[Notification], *, lease: str, ack_by_ms: int) -> FetchedBody:
    events = [_event(each) for each in notifications]
    return FetchedBody(events, lease or None, moment_text(ack_by_ms) if events else None)


def _event(notification: Notification) -> FetchedEvent:
    return FetchedEvent(
        entry=notification.entry_id,
        id=notification.event_id,
        topic=notification.topic,
        name=notification.name or None,
        time=notification.time or None,
        data=msgspec.Raw(notification.data),
        attributes=attributes_shown(notification.attributes),
    )
