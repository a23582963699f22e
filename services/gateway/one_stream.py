"""The stream of one topic: its state, its events from a place on, and its purge.

docs/protocols/streams.md, sections 5 and 6
"""

from starlette.requests import Request

from services.gateway.audit import record
from services.gateway.channel_access import MANAGER, ChannelCaller, account_for
from services.gateway.channel_views import OF_ACCOUNT
from services.gateway.context import context_of
from services.gateway.openapi import in_query
from services.gateway.operations import Access, Operation
from services.gateway.paths import in_path
from services.gateway.queries import page_limit
from shared.authentication import require_scope
from shared.model.api_keys import Scope
from shared.model.audit import Action
from shared.model.errors import Invalid
from shared.model.streams import Keep, Mark, Start, is_offset
from shared.runtime.http.responses import Problem
from shared.store.streams import READ_LOT
from shared.wire.streams import StreamBody, StreamEventsBody, stream_body, stream_events_body

_PAGE_BYTES = 1024 * 1024
_LONGEST_EPOCH = 32


async def _reader(request: Request) -> ChannelCaller:
    """Who has all channels of an account, or a key with `receive` that is bound to the topic.

    Raises MissingScope, Problem(403).
    """
    caller = ChannelCaller(await context_of(request).authenticator.caller(request))
    if caller.key is not None and not caller.has_all:
        require_scope(caller.key.scopes, Scope.RECEIVE)
        topic = in_path(request, "topic")
        routing = context_of(request).stores.routing
        if not await routing.bound_topics(caller.key.account_id, caller.key.id, [topic]):
            message = f"the topic {topic} is not bound to the API key: PUT /v1/bindings, without conditions"
            raise Problem(403, message, fields=[("topic", "must be bound to the API key")])
    return caller


READER = Access(_reader, MANAGER.schemes, MANAGER.errors)


@Operation("GET /v1/streams/{topic}", MANAGER, parameters=[OF_ACCOUNT])
async def get_stream(request: Request, caller: ChannelCaller) -> StreamBody:
    """Gets what is retained of a topic: its epoch, where it begins and ends, and how many read it."""
    account_id = await account_for(request, caller)
    topic, reads = in_path(request, "topic"), context_of(request).stores.stream_reads
    keep = await _keep(request, account_id, topic)
    state = await reads.state(account_id, topic)
    if state is None and keep is None:
        raise no_such_stream()
    return stream_body(topic, state, keep=keep, readers=await reads.readers(account_id, topic))


@Operation(
    "GET /v1/streams/{topic}/events",
    READER,
    parameters=[
        OF_ACCOUNT,
        in_query("after", "Read behind this offset: `next_after` of the last page; by default all."),
        in_query("epoch", "The epoch that the offset is of; without it the offset alone is checked."),
        in_query("limit", "How many at most.", {"type": "integer", "minimum": 1, "maximum": READ_LOT}),
    ],
)
async def get_stream_events(request: Request, caller: ChannelCaller) -> StreamEventsBody:
    """Reads the events of a topic in order, 100 at most, and says whether any are missing before them.

    Events for one channel or one customer are left out.
    """
    account_id = await account_for(request, caller)
    topic, query = in_path(request, "topic"), request.query_params
    resumed = await context_of(request).stores.stream_reads.resume(
        account_id,
        topic,
        _since(query.get("after"), query.get("epoch", "")),
        count=page_limit(query.get("limit"), usual=READ_LOT, most=READ_LOT),
        size_bytes=_PAGE_BYTES,
    )
    if not resumed.epoch and await _keep(request, account_id, topic) is None:
        raise no_such_stream()
    return stream_events_body(resumed)


@Operation("DELETE /v1/streams/{topic}", MANAGER, parameters=[OF_ACCOUNT])
async def purge_stream(request: Request, caller: ChannelCaller) -> None:
    """Drops everything that is retained of a topic; the stream goes on in another epoch."""
    account_id = await account_for(request, caller)
    topic = in_path(request, "topic")
    if await context_of(request).stores.streams.purge(account_id, topic) is None:
        raise no_such_stream()
    await record(request, Action.STREAM_PURGED, of=account_id, target=account_id, name=topic, by=caller.id)


async def _keep(request: Request, account_id: str, topic: str) -> Keep | None:
    """By the rules now."""
    streams = context_of(request).stores.streams
    keep = (await streams.rules(account_id)).keep_for(topic)
    return None if keep is None else keep.within(streams.limits.keep)


def _since(after: str | None, epoch: str) -> Mark | Start:
    """Raises Invalid."""
    if after is None:
        if epoch:
            raise Invalid("is of an offset: give after, too", field="epoch")
        return Start.EARLIEST
    if not is_offset(after):
        raise Invalid("must be an offset: next_after of another page", field="after")
    if len(epoch) > _LONGEST_EPOCH:
        raise Invalid(f"must have at most {_LONGEST_EPOCH} characters", field="epoch")
    return Mark(epoch, after)


def no_such_stream() -> Problem:
    return Problem(404, "there is no such stream: no rule names the topic, and nothing of it was retained")
