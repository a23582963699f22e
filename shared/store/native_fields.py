"""The fields of a native channel and its record in Redis, written from what was asked for and read back."""

import secrets
from collections.abc import Mapping

import orjson

from shared.model.account_channels import AccountChannel, ChannelRecord, ChannelSettings, NewChannel
from shared.model.callbacks import Callback
from shared.model.channels import Kind
from shared.model.signing_secrets import new_secret
from shared.model.webhooks import Disabled, DisabledFor, WebhookPolicy
from shared.redis.pipeline import Argument
from shared.store.channels import parse_limits
from shared.store.webhook_policies import policy_of, stored

RECORD = ("account_id", "native", "name", "customer", "revision")
CHANNEL = (
    *("kind", "generation", "created_at_ms", "owner", "dropped", "paused", "failing_since_ms"),
    *("idle_expiry_ms", "limits", "url", "headers", "policy", "config_version"),
    *("disabled", "disabled_since_ms"),
    *("ack_timeout_ms", "fetched", "ack_by_ms", "unfinished"),
)


def record_of(new: NewChannel) -> dict[str, Argument]:
    record: dict[str, Argument] = {"account_id": new.account_id}
    if new.name:
        record["name"] = new.name
    if new.customer:
        record["customer"] = new.customer
    if new.kind is Kind.WEBHOOK:
        record["signing_secret"] = new_secret()
    return record


def settings_fields(settings: ChannelSettings, kind: Kind) -> dict[str, Argument]:
    """As the channel has them: '' for what is the installation's, 0 for no expiry.

    The limits of a native webhook are marked: its queue has an age of its own (lua/included/own_limits.lua).
    """
    size_bytes, age_ms = settings.queue_bytes, settings.queue_age_ms
    has_limits = size_bytes is not None or age_ms is not None
    limits = f"{'' if size_bytes is None else size_bytes} {'' if age_ms is None else age_ms}"
    return {
        "idle_expiry_ms": settings.expires_after_ms or 0,
        "limits": f"{limits}w" if kind is Kind.WEBHOOK else limits if has_limits else "",
        "ack_timeout_ms": settings.ack_timeout_ms or "",
    }


def callback_fields(callback: Callback, policy: WebhookPolicy) -> dict[str, Argument]:
    return {
        "url": callback.url,
        "headers": orjson.dumps(dict(callback.headers)),
        "policy": stored(policy),
        "config_version": secrets.token_hex(8),
    }


def pairs(fields: Mapping[str, Argument]) -> list[Argument]:
    return [part for pair in fields.items() for part in pair]


def record_from(
    channel: str,
    account: bytes,
    native: bytes | None,
    name: bytes | None,
    customer: bytes | None,
    revision: bytes | None,
) -> ChannelRecord:
    if native is None:
        # The name is that of the API key.
        return ChannelRecord(channel, account.decode(), is_native=False)
    return ChannelRecord(
        *(channel, account.decode()),
        is_native=True,
        name=(name or b"").decode(),
        customer=(customer or b"").decode(),
        revision=int(revision or 0),
    )


def channel_from(channel: str, fields: list[bytes | None], size: int, *, is_held: bool) -> AccountChannel:
    """From the values of `RECORD` and `CHANNEL`."""
    of_record, found = fields[: len(RECORD)], dict(zip(CHANNEL, fields[len(RECORD) :], strict=True))
    account, native, name, customer, revision = of_record
    kind, generation, url, failing = (
        found[each] for each in ("kind", "generation", "url", "failing_since_ms")
    )
    assert account is not None
    assert kind is not None
    assert generation is not None
    size_bytes, age_ms = parse_limits(found["limits"])
    idle_expiry_ms, ack_timeout_ms = int(found["idle_expiry_ms"] or 0), int(found["ack_timeout_ms"] or 0)
    return AccountChannel(
        record=record_from(channel, account, native, name, customer, revision),
        kind=Kind(kind.decode()),
        generation=generation.decode(),
        created_at_ms=int(found["created_at_ms"] or 0),
        connected=is_held,
        pending=size,
        dropped=int(found["dropped"] or 0),
        is_paused=found["paused"] is not None,
        failing_since_ms=None if failing is None else int(failing),
        settings=ChannelSettings(idle_expiry_ms or None, size_bytes, age_ms, ack_timeout_ms or None),
        callback=None if url is None else Callback(url.decode(), orjson.loads(found["headers"] or b"{}")),
        policy=policy_of(found["policy"]),
        config_version=(found["config_version"] or b"").decode(),
        disabled=_disabled(found["disabled"], found["disabled_since_ms"]),
        fetched=min(int(found["fetched"] or 0), size),
        ack_by_ms=int(found["ack_by_ms"] or 0),
    )


def _disabled(reason: bytes | None, since_ms: bytes | None) -> Disabled | None:
    if reason is None:
        return None
    try:
        known = DisabledFor(reason.decode())
    except ValueError:
        # One of a later release: a list that cannot be read would be worse.
        known = DisabledFor.FAILED
    return Disabled(int(since_ms or 0), known)
