"""Pull: fetches of native channels, with their acks and nacks.

docs/protocols/channels.md, section Pull
"""

import asyncio

from starlette.requests import Request

from services.gateway.channel_access import NAMED_CHANNEL, OneChannel, no_such_channel
from services.gateway.channel_views import OF_ACCOUNT
from services.gateway.context import Context, context_of
from services.gateway.operations import Operation
from shared import telemetry
from shared.model.account_channels import ChannelRecord
from shared.model.errors import Invalid
from shared.runtime.http.protocol import Connection
from shared.runtime.http.responses import Problem
from shared.store.fetches import Fetched, Refused
from shared.wire.fetches import USUAL_EVENTS, FetchedBody, NewAck, NewFetch, NewNack, fetched_body

# A purge ends the delay of a nack: look again.
_LONGEST_PAUSE_S = 1.0


@Operation("POST /v1/channels/{channel}/fetch", NAMED_CHANNEL, errors=(409,), parameters=[OF_ACCOUNT])
async def fetch_events(request: Request, one: OneChannel, posted: NewFetch) -> FetchedBody:
    """Fetches the first pending events of a pull channel; no other fetch gets them until `ack_by`."""
    _check_native(one.record)
    context, count, wait_s = context_of(request), posted.max or USUAL_EVENTS, posted.wait_s or 0
    until_s = _now_s() + wait_s
    fetched = await _fetch(context, one.id, count)
    if not fetched.notifications and wait_s and not context.fetch_waits.is_stopping:
        with context.fetch_waits.place(one.record.account_id):
            fetched = await _wait(request, one, fetched, count=count, until_s=until_s)
    await context.stores.fetches.mark_sent(one.id, fetched.notifications)
    telemetry.sent.add(len(fetched.notifications), {"dialect": "native"})
    return fetched_body(fetched.notifications, lease=fetched.lease, ack_by_ms=fetched.ack_by_ms)


async def _wait(
    request: Request, one: OneChannel, fetched: Fetched, *, count: int, until_s: float
) -> Fetched:
    """Fetches again when there may be something, and at the end of the time. Raises Problem."""
    context = context_of(request)
    waits = context.fetch_waits
    connection: Connection = request.scope["extensions"]["http.connection"]
    # Without it a client that hangs up while it waits would look like one that only ends its input.
    connection["end_with_input"]()
    # The body has been read: what comes next is the end of the connection.
    gone = asyncio.ensure_future(request.receive())
    try:
        while not fetched.notifications and (left_s := until_s - _now_s()) > 0:
            if fetched.again_in_ms:
                pause_s = min(left_s, _LONGEST_PAUSE_S, fetched.again_in_ms / 1000)
                await waits.pause(within_s=pause_s, gone=gone)
            else:
                await waits.wait(one.id, within_s=left_s, gone=gone)
            if waits.is_stopping or gone.done() or connection["has_hung_up"]():
                # A client that has gone would keep the events from others for the whole time for acks.
                return Fetched()
            # The API key may have ended meanwhile, and the channel may be another account's.
            await NAMED_CHANNEL.check(request)
            fetched = await _fetch(context, one.id, count)
        return fetched
    finally:
        gone.cancel()


async def _fetch(context: Context, channel: str, count: int) -> Fetched:
    """Raises Problem."""
    fetched = await context.stores.fetches.fetch(channel, count=count)
    if isinstance(fetched, Refused):
        raise _refused(fetched)
    return fetched


@Operation("POST /v1/channels/{channel}/ack", NAMED_CHANNEL, errors=(409,), parameters=[OF_ACCOUNT])
async def ack_events(request: Request, one: OneChannel, posted: NewAck) -> None:
    """Acknowledges fetched events up to and including one; they are removed."""
    _check_native(one.record)
    acked = await context_of(request).stores.fetches.ack(one.id, lease=posted.lease, until=posted.until)
    if isinstance(acked, Refused):
        raise _refused(acked, field="until")
    telemetry.acked.add(acked)


@Operation("POST /v1/channels/{channel}/nack", NAMED_CHANNEL, errors=(409,), parameters=[OF_ACCOUNT])
async def nack_events(request: Request, one: OneChannel, posted: NewNack) -> None:
    """Gives back a fetched event and those behind it: they come again. It acknowledges nothing."""
    _check_native(one.record)
    refused = await context_of(request).stores.fetches.nack(
        one.id, lease=posted.lease, entry=posted.entry, delay_ms=round((posted.delay_s or 0) * 1000)
    )
    if refused is not None:
        raise _refused(refused, field="entry")


def _check_native(channel: ChannelRecord) -> None:
    """Raises Problem."""
    if not channel.is_native:
        message = "the channel belongs to an API key, which receives by the endpoints under /v2"
        raise Problem(409, message)


def _refused(why: Refused, *, field: str = "") -> Exception:
    match why:
        case Refused.ABSENT:
            return no_such_channel()
        case Refused.OTHER_KIND:
            return Problem(409, "the channel is not of the kind pull: nothing is fetched from it")
        case Refused.PAUSED:
            return Problem(409, "the channel is paused: resume it, and fetch again")
        case Refused.BUSY:
            message = (
                "another fetch has events of this channel: wait until it acks or nacks them, or its ack_by"
            )
            return Problem(409, message, kind="busy", headers={"retry-after": "1"})
        case Refused.ENDED:
            message = "the lease has ended: a later fetch has the events, or they were purged; fetch again"
            return Problem(409, message, fields=[("lease", "has ended")])
        case Refused.BEYOND:
            return Invalid("was not fetched with this lease, or was given back", field=field)


def _now_s() -> float:
    return asyncio.get_running_loop().time()
