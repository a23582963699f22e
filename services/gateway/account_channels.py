"""Channels as objects of an account: made, listed, changed, paused, purged and deleted under /v1/channels.

docs/protocols/channels.md
"""

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType
from msgspec.structs import asdict
from starlette.requests import Request

from services.gateway.audit import record
from services.gateway.channel_access import (
    MANAGER,
    NAMED_CHANNEL,
    ChannelCaller,
    OneChannel,
    account_for,
    no_such_channel,
    present,
)
from services.gateway.channel_views import OF_ACCOUNT, shown_channel
from services.gateway.context import Context, context_of
from services.gateway.openapi import in_query, schema
from services.gateway.operations import Operation
from services.gateway.queries import one_of, page_limit
from shared.model.account_channels import AccountChannel, Activity, ChannelRecord, NewChannel, shown_id
from shared.model.api_keys import new_id
from shared.model.audit import Action
from shared.model.callbacks import Callback
from shared.model.channels import Kind
from shared.model.errors import Invalid, NameTaken, NoSuchChannel
from shared.model.quotas import Quota
from shared.model.webhooks import DEFAULT_POLICY, WebhookPolicy
from shared.runtime.http.responses import Problem
from shared.store.channel_pages import Wanted
from shared.wire.account_channels import (
    AccountChannelBody,
    AccountChannelsBody,
    ChangedAccountChannel,
    NewAccountChannel,
    PurgedBody,
    changed_settings,
    check_ack_timeout,
    check_bindings,
    check_name,
    check_new,
    check_printable,
    settings_of,
)
from shared.wire.models import Id
from shared.wire.webhooks import ChangedWebhookTarget, changed_webhook

_PAGE = 100
_MOST = 1000
# What null ends.
_CLEARED = ("name", "customer", "expires_after_s", "queue", "ack_timeout_s")
_LISTED: msgspec.json.Decoder[list[msgspec.Raw]] = msgspec.json.Decoder(list[msgspec.Raw])


@Operation(
    "POST /v1/channels",
    MANAGER,
    status=201,
    errors=(409, 429),
    parameters=[in_query("account", "The account; only the operator names it.", schema(Id))],
)
async def create_channel(
    request: Request, caller: ChannelCaller, posted: NewAccountChannel
) -> AccountChannelBody:
    """Creates a channel of the account. It receives from the next publish on."""
    account_id = await account_for(request, caller)
    (callback, policy), bindings = check_new(posted), posted.bindings or []
    stores = context_of(request).stores
    await stores.quotas.check(account_id, Quota.CHANNELS)
    if bindings:
        await stores.quotas.check(account_id, Quota.BINDINGS, more=len(bindings))
    new = NewChannel(
        id=new_id(),
        account_id=account_id,
        kind=posted.kind,
        name=posted.name or "",
        customer=posted.customer or "",
        bindings=msgspec.json.encode(bindings) if bindings else b"",
        settings=settings_of(posted.expires_after_s, posted.queue, posted.ack_timeout_s),
        callback=callback,
        policy=policy,
    )
    try:
        await stores.account_channels.create(new)
    except NameTaken as error:
        raise _name_taken(error) from None
    except NoSuchChannel:
        raise Problem(503, "the creation took too long and was undone; try again") from None
    made = await stores.account_channels.read(new.id)
    if made is None:
        raise no_such_channel()
    await _record(request, Action.CHANNEL_CREATED, caller, made.record)
    return shown_channel(context_of(request), made, new.bindings or b"[]")


@Operation(
    "GET /v1/channels",
    MANAGER,
    parameters=[
        in_query("account", "The account; only the operator names it.", schema(Id)),
        in_query("after", "List from after this place: `next_after` of the last page."),
        in_query("limit", "How many at most.", {"type": "integer", "minimum": 1, "maximum": _MOST}),
        in_query("kind", "Only channels of this kind.", {"enum": [*Kind]}),
        in_query("state", "Only channels in this state.", {"enum": [*Activity]}),
        in_query("customer", "Only channels of this customer."),
        in_query("name_prefix", "Only channels whose names begin so, in the order of their names."),
    ],
)
async def list_channels(request: Request, caller: ChannelCaller) -> AccountChannelsBody:
    """Lists the account's channels by their ids, 100 unless `limit` says otherwise."""
    account_id = await account_for(request, caller)
    query = request.query_params
    kind, state = query.get("kind"), query.get("state")
    wanted = Wanted(
        kind=None if kind is None else Kind(one_of([*Kind], kind, "kind")),
        state=None if state is None else Activity(one_of([*Activity], state, "state")),
        customer=query.get("customer"),
        name_prefix=query.get("name_prefix"),
    )
    try:
        channels, next_after = await context_of(request).stores.channel_pages.page(
            account_id,
            wanted,
            after=query.get("after", ""),
            count=page_limit(query.get("limit"), usual=_PAGE, most=_MOST),
        )
    except ValueError:
        raise Invalid("must be next_after of another page", field="after") from None
    return AccountChannelsBody([shown_channel(context_of(request), each) for each in channels], next_after)


@Operation("PATCH /v1/channels/{channel}", NAMED_CHANNEL, errors=(409, 429), parameters=[OF_ACCOUNT])
async def change_channel(
    request: Request, one: OneChannel, posted: ChangedAccountChannel
) -> AccountChannelBody:
    """Changes a channel of the account; what is left out stays."""
    context, before = context_of(request), await present(request, one)
    _check_changes(before, posted)
    after = before
    if _changes_in(posted):
        await _change(context, before, posted)
        after = await present(request, one)
        await _record(request, Action.CHANNEL_CHANGED, one.caller, after.record)
    bindings = await context.stores.account_channels.bindings(after.record)
    return shown_channel(context, after, bindings)


async def _change(context: Context, before: AccountChannel, posted: ChangedAccountChannel) -> None:
    """Raises Problem, Invalid, QuotaExceeded."""
    channels = context.stores.account_channels
    webhook = posted.webhook
    if posted.bindings is not None:
        await _check_quota(context, before.record, posted.bindings)
    try:
        await channels.change(
            before,
            name=_changed_text(posted.name),
            customer=_changed_text(posted.customer),
            settings=changed_settings(posted, before.settings),
        )
        if webhook is not None:
            await channels.change_webhook(before, lambda found: _changed_target(found, webhook))
        if posted.bindings is not None:
            stored = msgspec.json.encode(posted.bindings) if posted.bindings else b""
            await channels.put_bindings(before.record, stored)
    except NameTaken as error:
        raise _name_taken(error) from None
    except NoSuchChannel:
        raise no_such_channel() from None


def _changes_in(posted: ChangedAccountChannel) -> list[str]:
    """The fields that change something."""
    given = [field for field, value in asdict(posted).items() if value is not UNSET and value is not None]
    given += [field for field in _CLEARED if getattr(posted, field) is None]
    return [field for field in given if field != "kind"]


def _check_changes(before: AccountChannel, posted: ChangedAccountChannel) -> None:
    """Raises Problem(409), Invalid."""
    if posted.kind is not None and posted.kind is not before.kind:
        message = f"cannot change: the channel is a {before.kind}; delete it, and create another"
        raise Problem(409, f"kind: {message}", fields=[("kind", message)])
    if not before.record.is_native and (changes := _changes_in(posted)):
        message = "belongs to an API key, which changes it by the endpoints under /v2"
        fields = [(field, message) for field in changes]
        raise Problem(409, f"{', '.join(changes)}: {message}", fields=fields)
    check_name(posted.name or None)
    check_printable(posted.customer or None, "customer")
    check_bindings(posted.bindings or [])
    check_ack_timeout(posted.ack_timeout_s, before.kind)
    if posted.webhook is not None and before.kind is not Kind.WEBHOOK:
        raise Invalid(f"is for the kind webhook, not {before.kind}", field="webhook")
    if posted.webhook is not None:
        # Before anything is written.
        _changed_target(before, posted.webhook)


def _changed_text(given: str | UnsetType | None) -> str | None:
    """'' to end it, None to leave it."""
    return None if given is UNSET else given or ""


def _changed_target(before: AccountChannel, posted: ChangedWebhookTarget) -> tuple[Callback, WebhookPolicy]:
    """Raises Invalid."""
    assert before.callback is not None, "a webhook has a URL"
    return changed_webhook(posted, before.callback, before.policy or DEFAULT_POLICY)


async def _check_quota(context: Context, channel: ChannelRecord, bindings: Sequence[Any]) -> None:
    """Raises QuotaExceeded."""
    before = len(_LISTED.decode(await context.stores.account_channels.bindings(channel)))
    if len(bindings) > before:
        await context.stores.quotas.check(channel.account_id, Quota.BINDINGS, more=len(bindings) - before)


@Operation("DELETE /v1/channels/{channel}", NAMED_CHANNEL, parameters=[OF_ACCOUNT])
async def delete_channel(request: Request, one: OneChannel) -> None:
    """Deletes a channel with its queue; closes its socket. That of an API key the key may register again."""
    channel = await present(request, one)
    if not await context_of(request).stores.account_channels.delete(channel):
        raise no_such_channel()
    await _record(request, Action.CHANNEL_DELETED, one.caller, channel.record)


@Operation("POST /v1/channels/{channel}/pause", NAMED_CHANNEL, parameters=[OF_ACCOUNT])
async def pause_channel(request: Request, one: OneChannel) -> None:
    """Pauses a channel: it goes on queueing, and delivers nothing until it is resumed."""
    channel = await present(request, one)
    if not await context_of(request).stores.account_channels.pause(one.id):
        raise no_such_channel()
    await _record(request, Action.CHANNEL_PAUSED, one.caller, channel.record)


@Operation("POST /v1/channels/{channel}/resume", NAMED_CHANNEL, parameters=[OF_ACCOUNT])
async def resume_channel(request: Request, one: OneChannel) -> None:
    """Ends a pause."""
    channel = await present(request, one)
    if not await context_of(request).stores.account_channels.resume(one.id):
        raise no_such_channel()
    await _record(request, Action.CHANNEL_RESUMED, one.caller, channel.record)


@Operation("POST /v1/channels/{channel}/purge", NAMED_CHANNEL, parameters=[OF_ACCOUNT])
async def purge_channel(request: Request, one: OneChannel) -> PurgedBody:
    """Drops everything that is pending in a channel."""
    channel = await present(request, one)
    try:
        purged = await context_of(request).stores.account_channels.purge(channel)
    except NoSuchChannel:
        raise no_such_channel() from None
    await _record(request, Action.CHANNEL_PURGED, one.caller, channel.record)
    return PurgedBody(purged)


async def _record(request: Request, action: Action, caller: ChannelCaller, channel: ChannelRecord) -> None:
    await record(
        request,
        action,
        of=channel.account_id,
        target=shown_id(channel.id),
        name=channel.name,
        by=caller.id,
    )


def _name_taken(error: NameTaken) -> Problem:
    message = f"{error}: {shown_id(error.by)}"
    return Problem(409, f"name: {message}", fields=[("name", message)])
