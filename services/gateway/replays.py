"""Resends and replays: retained events that a native channel gets once more.

docs/protocols/streams.md
"""

import asyncio

from starlette.requests import Request
from starlette.responses import Response

from services.gateway.audit import record
from services.gateway.bodies import model_response
from services.gateway.channel_access import NAMED_CHANNEL, OneChannel, no_such_channel
from services.gateway.channel_views import OF_ACCOUNT
from services.gateway.context import context_of
from services.gateway.openapi import response
from services.gateway.operations import Operation
from services.gateway.streams import NOT_RETAINED
from shared import telemetry
from shared.clock import now_ms
from shared.model import topics
from shared.model.account_channels import ChannelRecord, shown_id
from shared.model.api_keys import new_id
from shared.model.audit import Action
from shared.model.errors import NoSuchChannel
from shared.model.replays import RESEND, USUAL_PER_S, NewReplay, Replay, ReplayState
from shared.model.streams import Retained
from shared.publish.sizes import ENTRY_BYTES
from shared.runtime.http.responses import Problem, too_many
from shared.store.queues import Appended
from shared.store.replays import MOST_REPLAYS, ReplayRuns, TooManyReplays
from shared.store.stored_bytes import Stored
from shared.store.streams import Streams
from shared.wire.replays import (
    NewReplayBody,
    NewResend,
    ReplayBody,
    ResentBody,
    check_patterns,
    once_more,
    replay_body,
    times_in,
)

_REPLAY = "/v1/channels/{channel}/replay"
# Accounts whose retained events are being counted.
_counting: set[str] = set()


@Operation(
    "POST /v1/channels/{channel}/resend",
    NAMED_CHANNEL,
    status=202,
    errors=(409, 429),
    parameters=[OF_ACCOUNT],
)
async def resend_event(request: Request, one: OneChannel, posted: NewResend) -> ResentBody:
    """Queues a retained event for the channel once more, under its id."""
    channel, stores = one.record, context_of(request).stores
    _check_native(channel)
    retained = await stores.streams.find(channel.account_id, posted.event_id, source=posted.source or "")
    if retained is None:
        raise Problem(404, NOT_RETAINED, fields=[("event_id", NOT_RETAINED)])
    _check_recipient(retained, channel)
    stores.stored_bytes.check(channel.account_id)
    reply = await stores.queues.begin_append(channel.id, [once_more(retained)], again=RESEND)
    if stores.queues.end_append(reply) is not Appended.QUEUED:
        raise no_such_channel()
    stores.stored_bytes.add(channel.account_id, Stored.QUEUES, len(retained.event.data) + ENTRY_BYTES)
    telemetry.queued_again.add(1, {"why": RESEND})
    await _record(request, Action.EVENT_RESENT, one)
    return ResentBody(retained.event.id, retained.event.topic, retained.offset)


def _check_recipient(retained: Retained, channel: ChannelRecord) -> None:
    """Raises Problem if the event was for another channel or customer."""
    event = retained.event
    if event.to not in (None, channel.id):
        raise Problem(409, "the event was for another channel alone")
    if event.customer not in (None, channel.customer):
        raise Problem(409, "the event was for the channels of another customer alone")


@Operation(
    f"POST {_REPLAY}",
    NAMED_CHANNEL,
    successes={202: response("Begun.", ReplayBody)},
    errors=(409, 429),
    parameters=[OF_ACCOUNT],
)
async def begin_replay(request: Request, one: OneChannel, posted: NewReplayBody) -> Response:
    """Begins to queue what is retained since a time, and what the channel's bindings match, once more."""
    _check_native(one.record)
    check_patterns(posted.topics or [])
    now = now_ms()
    since_ms, until_ms = times_in(posted, now)
    stores, account_id = context_of(request).stores, one.record.account_id
    running = await stores.replays.find(one.id)
    if running is not None and running.state is ReplayState.RUNNING:
        # Before the count, which costs much.
        raise _runs()
    new = NewReplay(
        id=new_id(),
        channel=one.id,
        account_id=account_id,
        since_ms=since_ms,
        until_ms=until_ms,
        topics=posted.topics or [],
        per_s=posted.per_s or USUAL_PER_S,
        total=await retained_count(stores.streams, account_id, posted.topics or []),
        created_ms=now,
    )
    try:
        await stores.replays.begin(new)
    except NoSuchChannel:
        raise no_such_channel() from None
    except ReplayRuns:
        raise _runs() from None
    except TooManyReplays:
        message = f"{MOST_REPLAYS} replays of this account are running: wait until one ends"
        raise Problem(429, message, headers={"retry-after": "60"}) from None
    await _record(request, Action.REPLAY_BEGUN, one)
    return model_response(replay_body(await _present(request, one)), status=202)


def _runs() -> Problem:
    return Problem(409, "a replay of this channel is running: wait for its end, or cancel it")


async def retained_count(streams: Streams, account_id: str, patterns: list[str]) -> int:
    """How many events the topics have, whatever their time.

    An account's are counted once at a time: that may be 10,000 commands. Raises Problem(429).
    """
    if account_id in _counting:
        raise too_many("another replay of this account is beginning; retry")
    _counting.add(account_id)
    total = 0
    try:
        async for some in streams.topics(account_id):
            wanted = [
                topic
                for topic in some
                if not patterns or any(topics.matches(pattern, topic) for pattern in patterns)
            ]
            total += sum(await asyncio.gather(*(streams.length(account_id, topic) for topic in wanted)))
    finally:
        _counting.discard(account_id)
    return total


@Operation(f"GET {_REPLAY}", NAMED_CHANNEL, parameters=[OF_ACCOUNT])
async def get_replay(request: Request, one: OneChannel) -> ReplayBody:
    """Gets the progress of the channel's last replay, until 7 days after its end."""
    return replay_body(await _present(request, one))


@Operation(f"DELETE {_REPLAY}", NAMED_CHANNEL, parameters=[OF_ACCOUNT])
async def cancel_replay(request: Request, one: OneChannel) -> None:
    """Cancels the channel's replay. What it has queued stays."""
    if not await context_of(request).stores.replays.cancel(one.record.account_id, one.id):
        raise Problem(404, "no replay of this channel is running")
    await _record(request, Action.REPLAY_CANCELLED, one)


async def _present(request: Request, one: OneChannel) -> Replay:
    """Raises Problem(404)."""
    replay = await context_of(request).stores.replays.find(one.id)
    if replay is None:
        raise Problem(404, "there is no replay of this channel")
    return replay


def _check_native(channel: ChannelRecord) -> None:
    """Raises Problem."""
    if not channel.is_native:
        raise Problem(409, "the channel belongs to an API key: only native channels get events once more")


async def _record(request: Request, action: Action, one: OneChannel) -> None:
    target, of = shown_id(one.id), one.record.account_id
    await record(request, action, of=of, target=target, name=one.record.name, by=one.caller.id)
