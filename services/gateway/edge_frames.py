"""What edges say on native WebSockets and in streams, as models: for the AsyncAPI document only.

What a client says has its models in shared/wire/native/frames.py.
"""

from typing import Annotated

from msgspec import UNSET, Meta, UnsetType

from shared.model.streams import NotRecovered
from shared.wire.models import Closed, Count, Moment
from shared.wire.native.replies import ErrorCode

Offset = Annotated[str, Meta(description="The place of an event in the stream of its topic.")]
Epoch = Annotated[str, Meta(description="Another after a purge or a loss; '' before the first event.")]
Entry = Annotated[str, Meta(description="The place of an event in the queue of its channel.")]
_Channel = Annotated[str, Meta(description="Its id.")]


class Limits(Closed):
    frame_bytes: Count
    topics: Count
    channels: Count
    unanswered_publishes: Count
    events: Annotated[int, Meta(ge=1, description="Of one publish.")]
    authenticate_within_s: Count | UnsetType = UNSET


class Hello(Closed):
    """The first frame. With `sub` or `expires_at` the handshake has authenticated the client."""

    session: str
    limits: Limits
    sub: str | UnsetType = UNSET
    expires_at: Moment | UnsetType = UNSET


class Authenticated(Closed):
    sub: str | UnsetType = UNSET
    expires_at: Moment | UnsetType = UNSET


class Refreshed(Closed):
    expires_at: Moment


class Begun(Closed):
    """Reading goes on behind this offset. Without `recovered` something is missing before it."""

    topic: str
    epoch: Epoch
    offset: Offset
    recovered: bool
    first: Annotated[Offset, Meta(description="The first event to be had.")] | UnsetType = UNSET
    reason: NotRecovered | UnsetType = UNSET


class Unsubscribed(Closed):
    topic: str


class Moved(Closed):
    """Events passed that are not for this client."""

    topic: str
    offset: Offset


class Ended(Closed):
    """The subscription is over."""

    topic: str
    reason: Annotated[str, Meta(examples=["forbidden", "unbound"])]


class Opened(Closed):
    channel: _Channel
    name: str | UnsetType = UNSET


class Handled(Closed):
    """Of an ack or a nack."""

    channel: _Channel
    entry: Entry


class GivenBack(Closed):
    """The channel was closed as its client asked."""

    channel: _Channel


class ChannelClosed(Closed):
    """The channel is no longer this socket's. `reconnect`: it may be opened again."""

    channel: _Channel
    reason: Annotated[str, Meta(examples=["taken_over", "channel_deleted", "paused", "forbidden"])]
    reconnect: bool


class Pong(Closed):
    pass


class RequestError(Closed):
    """Why a request is refused."""

    code: ErrorCode
    message: Annotated[str, Meta(min_length=1)]
    retry_after_s: Annotated[float, Meta(ge=0)] | UnsetType = UNSET


class StreamRecovered(Closed):
    """Of Server-Sent Events: as `Begun`, but `first` is null without any event."""

    topic: str
    recovered: bool
    epoch: Epoch
    offset: Offset
    first: Annotated[Offset | None, Meta(description="The first event to be had.")]
    reason: NotRecovered | UnsetType = UNSET


class StreamOverflow(Closed):
    message: str
    reconnect: bool


class StreamEnd(Closed):
    """`reconnect`: the same request may be served again."""

    reason: str
    message: str
    reconnect: bool
