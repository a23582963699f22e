"""Bodies of /v1/channels/{api_key_id}: our own view of a channel (docs/protocols/channels.md)."""

from typing import Annotated, Any

from msgspec import UNSET, Meta, UnsetType

from shared.model.channels import ChannelState, Failing, Kind
from shared.model.deliveries import AttemptOutcome, Delivery, Excerpt
from shared.wire.models import Closed, Count, Moment
from shared.wire.pelion.serialization import Serialization, stored
from shared.wire.times import moment_or_none, moment_text

# As many as are kept (store/attempts.py).
MOST_DELIVERIES = 200


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


class DeliveryBody(Closed, kw_only=True):
    """One attempt to deliver a batch."""

    id: str
    at: Moment
    took_ms: Count
    outcome: AttemptOutcome
    method: Annotated[str | None, Meta(description="Like `url`, null where an older release made it.")]
    url: str | None
    webhook_id: str
    batch: Count
    events: Annotated[list[str], Meta(description="Ids of its events: the first 4 KiB of them.")]
    again: Annotated[str | None, Meta(description="`resend` or `replay`, if it repeats a delivery.")]
    status: int | None
    error: str
    detail: Annotated[str, Meta(description="The error in words.")]
    next_attempt_at: Moment | None


class DeliveriesBody(Closed):
    deliveries: Annotated[list[DeliveryBody], Meta(max_length=MOST_DELIVERIES)]
    next_after: str | None


class ExcerptBody(Closed):
    """The first 2 KiB of a body."""

    text: str
    encoding: Annotated[str, Meta(description="`utf-8`, or `base64` for a body that is no text.")]


class SentBody(Closed):
    """What was sent. Secrets in its headers are replaced."""

    headers: dict[str, str]
    body: ExcerptBody
    body_bytes: Count


class AnswerBody(Closed):
    """What was answered. Secrets in its headers are replaced too."""

    headers: dict[str, str]
    body: ExcerptBody


class OneDeliveryBody(DeliveryBody, kw_only=True):
    """One attempt; of a failure also what was sent and answered."""

    request: SentBody | None
    response: AnswerBody | None


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


def deliveries_body(deliveries: list[Delivery], next_after: str | None) -> DeliveriesBody:
    return DeliveriesBody([DeliveryBody(**_shown(each)) for each in deliveries], next_after)


def one_delivery_body(delivery: Delivery) -> OneDeliveryBody:
    found = delivery.exchange
    if found is None:
        return OneDeliveryBody(**_shown(delivery), request=None, response=None)
    has_response = delivery.status is not None
    return OneDeliveryBody(
        **_shown(delivery),
        request=SentBody(dict(found.headers), _excerpt(found.body), found.body_bytes),
        response=AnswerBody(dict(found.answer_headers), _excerpt(found.answer)) if has_response else None,
    )


def _excerpt(excerpt: Excerpt) -> ExcerptBody:
    return ExcerptBody(excerpt.text, "base64" if excerpt.is_base64 else "utf-8")


def _shown(delivery: Delivery) -> dict[str, Any]:
    return {
        "id": delivery.id,
        "at": moment_text(delivery.at_ms),
        "took_ms": delivery.took_ms,
        "outcome": delivery.outcome,
        "method": delivery.method or None,
        "url": delivery.url or None,
        "webhook_id": delivery.webhook_id,
        "batch": delivery.count,
        "events": list(delivery.events),
        "again": delivery.again or None,
        "status": delivery.status,
        "error": delivery.error,
        "detail": delivery.detail,
        "next_attempt_at": moment_or_none(delivery.next_attempt_ms),
    }
