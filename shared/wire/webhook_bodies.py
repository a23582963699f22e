"""The body of a request to a webhook, in the format that its policy asks for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from shared.model.events import Notification
from shared.model.webhooks import Format, WebhookPolicy
from shared.wire import cloudevents
from shared.wire.messages import Message
from shared.wire.pelion.messages import message
from shared.wire.pelion.serialization import DEFAULT, Serialization

_MEDIA_TYPES = {
    Format.CLOUDEVENTS: cloudevents.MEDIA_TYPE,
    Format.CLOUDEVENTS_BATCH: cloudevents.BATCH_MEDIA_TYPE,
    Format.PELION: "application/json",
}


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """What one body may hold; a single notification that is larger is sent alone."""

    size_bytes: int
    count: int


def body_of(
    notifications: Sequence[Notification],
    policy: WebhookPolicy | None,
    *,
    account_id: str,
    limits: BodyLimits,
    wanted: Serialization = DEFAULT,
) -> Message:
    """The front of the notifications, of which there is one at least, as far as the limits allow.

    Without a policy it is a NotificationMessage in the serialization that is wanted.
    """
    match Format.PELION if policy is None else policy.format:
        case Format.CLOUDEVENTS:
            first = notifications[0]
            return Message(cloudevents.structured(first, account_id=account_id), first.entry_id, 1)
        case Format.CLOUDEVENTS_BATCH:
            return cloudevents.batched(
                notifications,
                account_id=account_id,
                limit_bytes=limits.size_bytes,
                limit_count=limits.count,
            )
        case Format.PELION:
            found = message(
                notifications, limit_bytes=limits.size_bytes, limit_count=limits.count, wanted=wanted
            )
            assert found is not None, "there is one notification at least"
            return found


def with_content_type(headers: Mapping[str, str], policy: WebhookPolicy | None) -> dict[str, str]:
    """The headers of a request; a Content-Type that the webhook's owner has set stays."""
    if policy is None or any(name.lower() == "content-type" for name in headers):
        return dict(headers)
    return {**headers, "Content-Type": _MEDIA_TYPES[policy.format]}
