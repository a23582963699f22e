"""Bodies of /v1/channels: channels as objects of an account (docs/protocols/channels.md)."""

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from shared.model.account_channels import (
    ACK_TIMEOUT_MS,
    AccountChannel,
    Activity,
    ChannelSettings,
    name_error,
    shown_id,
)
from shared.model.callbacks import Callback
from shared.model.channels import Kind
from shared.model.errors import Invalid
from shared.model.webhooks import DEFAULT_POLICY, DisabledFor, WebhookPolicy, most_queue_age_ms
from shared.wire.models import Closed, Count, Id, Moment, field_at
from shared.wire.times import moment_or_none, moment_text
from shared.wire.topic_bindings import Topics, check_topics
from shared.wire.webhooks import (
    ChangedWebhookTarget,
    NewWebhookTarget,
    WebhookTargetBody,
    new_webhook,
    webhook_body,
)

ChannelId = Annotated[str, Meta(pattern=r"^ch_[0-9a-f]{32}\Z")]
_TEN_YEARS_S = 10 * 366 * 24 * 3600
_Name = Annotated[
    str, Meta(min_length=1, max_length=255, description="Unique in the account; never like an id.")
]
_Customer = Annotated[str, Meta(min_length=1, max_length=255)]
_ExpiresAfter = Annotated[
    int, Meta(ge=1, le=_TEN_YEARS_S, description="It ends when it was idle for so long; null: never.")
]
_AckTimeout = Annotated[
    int,
    Meta(ge=1, le=3600, description="Of the kind pull: then what was not acked comes again."),
]


class QueueLimits(Closed):
    """What the queue holds at most: never more than the installation's limits."""

    bytes: Annotated[int, Meta(ge=1024, le=2**53)] | None = None
    age_s: Annotated[int, Meta(ge=1, le=_TEN_YEARS_S)] | None = None


class NewAccountChannel(Closed):
    kind: Kind
    name: _Name | None = None
    customer: _Customer | None = None
    bindings: Topics | None = None
    expires_after_s: _ExpiresAfter | None = None
    queue: QueueLimits | None = None
    ack_timeout_s: _AckTimeout | None = None
    webhook: NewWebhookTarget | None = None


class ChangedAccountChannel(Closed):
    """What is left out stays as it is; null ends a name, a customer, an expiry, limits, and a time
    for acks."""

    kind: Kind | None = None
    name: _Name | UnsetType | None = UNSET
    customer: _Customer | UnsetType | None = UNSET
    bindings: Topics | None = None
    expires_after_s: _ExpiresAfter | UnsetType | None = UNSET
    queue: QueueLimits | UnsetType | None = UNSET
    ack_timeout_s: _AckTimeout | UnsetType | None = UNSET
    webhook: ChangedWebhookTarget | None = None


class AccountChannelBody(Closed, kw_only=True):
    """A channel of an account as it is now."""

    id: ChannelId
    name: str | None
    customer: str | None
    kind: Kind
    state: Activity
    api_key_id: Annotated[Id | None, Meta(description="Whose channel it is; null for a native one.")]
    created_at: Moment
    connected: Annotated[
        bool | UnsetType,
        Meta(description="Is a socket or a poll open, or an event fetched? Not of a webhook."),
    ] = UNSET
    pending: Count
    dropped: Count
    failing_since: Moment | UnsetType = UNSET
    disabled_since: Moment | UnsetType = UNSET
    disabled_reason: Annotated[
        DisabledFor | UnsetType, Meta(description="Only of a webhook that is disabled.")
    ] = UNSET
    expires_after_s: int | UnsetType | None = UNSET
    queue: QueueLimits | UnsetType = UNSET
    ack_timeout_s: Annotated[int | UnsetType, Meta(description="Only of a native pull channel.")] = UNSET
    fetched: Annotated[Count | UnsetType, Meta(description="How many a fetch has until `ack_by`.")] = UNSET
    ack_by: Moment | UnsetType | None = UNSET
    webhook: WebhookTargetBody | UnsetType = UNSET
    bindings: Annotated[Topics | UnsetType, Meta(description="Not in a list.")] = UNSET


class AccountChannelsBody(Closed):
    channels: Annotated[list[AccountChannelBody], Meta(max_length=1000)]
    next_after: Annotated[
        str | None, Meta(description="`after` of the next page, which may also follow an empty one.")
    ]


class PurgedBody(Closed):
    purged: Count


def check_new(posted: NewAccountChannel) -> tuple[Callback | None, WebhookPolicy]:
    """The webhook's URL, headers and policy; no URL for another kind. Raises Invalid, naming the field."""
    check_name(posted.name)
    check_printable(posted.customer, "customer")
    check_bindings(posted.bindings or [])
    check_ack_timeout(posted.ack_timeout_s, posted.kind)
    if posted.kind is not Kind.WEBHOOK:
        if posted.webhook is not None:
            raise Invalid(f"is for the kind webhook, not {posted.kind}", field="webhook")
        return None, DEFAULT_POLICY
    if posted.webhook is None:
        raise Invalid("is missing: a webhook needs its url", field="webhook")
    return new_webhook(posted.webhook)


def check_ack_timeout(ack_timeout_s: int | UnsetType | None, kind: Kind) -> None:
    """Raises Invalid."""
    if isinstance(ack_timeout_s, int) and kind is not Kind.PULL:
        raise Invalid(f"is for the kind pull, not {kind}", field="ack_timeout_s")


def check_name(name: str | None) -> None:
    """Raises Invalid."""
    wrong = None if name is None else name_error(name)
    if wrong is not None:
        raise Invalid(wrong, field="name")


def check_printable(text: str | None, field: str) -> None:
    """Raises Invalid."""
    if text is not None and not text.isprintable():
        raise Invalid("must have printable characters only", field=field)


def check_bindings(bindings: Topics) -> None:
    """Raises Invalid, naming the field below `bindings`."""
    try:
        check_topics(bindings)
    except Invalid as error:
        raise _below("bindings", error) from None


def _below(field: str, error: Invalid) -> Invalid:
    if not error.fields:
        return Invalid(error.message, field=field)
    [(name, message)] = error.fields
    return Invalid(message, field=field_at(field, name))


def settings_of(
    expires_after_s: int | None, queue: QueueLimits | None, ack_timeout_s: int | None
) -> ChannelSettings:
    limits = queue or QueueLimits()
    return ChannelSettings(
        None if expires_after_s is None else expires_after_s * 1000,
        limits.bytes,
        None if limits.age_s is None else limits.age_s * 1000,
        None if ack_timeout_s is None else ack_timeout_s * 1000,
    )


def changed_settings(posted: ChangedAccountChannel, before: ChannelSettings) -> ChannelSettings | None:
    """The settings after the change; None if they stay."""
    if posted.expires_after_s is posted.queue is posted.ack_timeout_s is UNSET:
        return None
    expires_after_s, queue, ack_timeout_s = _expiry_s(before), _queue(before), _seconds(before.ack_timeout_ms)
    return settings_of(
        expires_after_s if posted.expires_after_s is UNSET else posted.expires_after_s,
        queue if posted.queue is UNSET else posted.queue,
        ack_timeout_s if posted.ack_timeout_s is UNSET else posted.ack_timeout_s,
    )


def account_channel_body(
    channel: AccountChannel, bindings: bytes | None = None, *, now_ms: int, lifetime_ms: int
) -> AccountChannelBody:
    """With its bindings, in their stored form, or without. `lifetime_ms` is that of other queues."""
    record, settings = channel.record, channel.settings
    body = AccountChannelBody(
        id=shown_id(record.id),
        name=record.name or None,
        customer=record.customer or None,
        kind=channel.kind,
        state=channel.state,
        api_key_id=None if record.is_native else record.id,
        created_at=moment_text(channel.created_at_ms),
        connected=UNSET if channel.kind is Kind.WEBHOOK else channel.connected,
        pending=channel.pending,
        dropped=channel.dropped,
        failing_since=moment_or_none(channel.failing_since_ms) or UNSET,
    )
    if channel.disabled is not None:
        body.disabled_since = moment_text(channel.disabled.since_ms)
        body.disabled_reason = channel.disabled.reason
    if record.is_native:
        body.expires_after_s, body.queue = _expiry_s(settings), _queue(settings)
        if channel.kind is Kind.WEBHOOK:
            most_ms = most_queue_age_ms(lifetime_ms)
            body.queue.age_s = min(settings.queue_age_ms or most_ms, most_ms) // 1000
        if channel.kind is Kind.PULL:
            _show_fetch(body, channel, now_ms=now_ms)
        if bindings is not None and channel.callback is not None:
            body.webhook = webhook_body(channel.callback, channel.policy or DEFAULT_POLICY)
    if bindings is not None:
        shown: Any = msgspec.Raw(bindings)
        body.bindings = shown
    return body


def _show_fetch(body: AccountChannelBody, channel: AccountChannel, *, now_ms: int) -> None:
    is_out = channel.fetched > 0 and channel.ack_by_ms > now_ms
    body.connected = is_out
    body.ack_timeout_s = (channel.settings.ack_timeout_ms or ACK_TIMEOUT_MS) // 1000
    body.fetched = channel.fetched if is_out else 0
    body.ack_by = moment_text(channel.ack_by_ms) if is_out else None


def _expiry_s(settings: ChannelSettings) -> int | None:
    return _seconds(settings.expires_after_ms)


def _queue(settings: ChannelSettings) -> QueueLimits:
    return QueueLimits(settings.queue_bytes, _seconds(settings.queue_age_ms))


def _seconds(ms: int | None) -> int | None:
    return None if ms is None else ms // 1000
