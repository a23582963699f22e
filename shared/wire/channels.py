"""Bodies of /v1/channels/{api_key_id}: our own view of a channel (docs/protocols/channels.md)."""

from typing import Annotated

from msgspec import UNSET, Meta, UnsetType

from shared.model.channels import ChannelState, Failing, Kind
from shared.model.deliveries import Delivery
from shared.wire.models import Closed, Count, Moment
from shared.wire.pelion.serialization import Serialization, stored
from shared.wire.times import moment_or_none, moment_text


class ChannelBody(Closed, kw_only=True):
    """A channel as it is now."""

    kind: Kind
    connected: Annotated[
        bool | UnsetType, Meta(description="Is a socket or a poll open? Not of a webhook.")
    ] = UNSET
    pending: Count
    dropped: Count
    serialization: Serialization
    failing_since: Moment | UnsetType = UNSET
    failed_attempts: Count | UnsetType = UNSET
    next_attempt_at: Moment | UnsetType = UNSET


class DeliveryBody(Closed):
    """One attempt to deliver a batch."""

    at: Moment
    webhook_id: str
    batch: Count
    status: int | None
    error: str
    took_ms: Count
    next_attempt_at: Moment | None


class DeliveriesBody(Closed):
    deliveries: Annotated[list[DeliveryBody], Meta(max_length=100)]


class SigningSecretBody(Closed):
    signing_secret: Annotated[str, Meta(pattern="^whsec_")]


def channel_body(state: ChannelState, failing: Failing | None) -> ChannelBody:
    body = ChannelBody(
        kind=state.kind,
        connected=UNSET if state.kind is Kind.WEBHOOK else state.connected,
        pending=state.pending,
        dropped=state.dropped,
        serialization=stored(state.serialization),
    )
    if failing is not None:
        body.failing_since = moment_text(failing.since_ms)
        body.failed_attempts = failing.failed_attempts
        body.next_attempt_at = moment_or_none(failing.next_attempt_ms) or UNSET
    return body


def deliveries_body(deliveries: list[Delivery]) -> DeliveriesBody:
    return DeliveriesBody([_delivery(each) for each in deliveries])


def _delivery(delivery: Delivery) -> DeliveryBody:
    return DeliveryBody(
        moment_text(delivery.at_ms),
        delivery.webhook_id,
        batch=delivery.count,
        status=delivery.status,
        error=delivery.error,
        took_ms=delivery.took_ms,
        next_attempt_at=moment_or_none(delivery.next_attempt_ms),
    )
