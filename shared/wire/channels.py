"""What /v1/channels/{api_key_id} answers: our own view of a channel (docs/protocols/channels.md)."""

from typing import Any

from shared.model.channels import ChannelState, Failing, Kind
from shared.model.deliveries import Delivery
from shared.wire.pelion.serialization import stored
from shared.wire.times import moment_text


def channel_body(state: ChannelState, failing: Failing | None) -> dict[str, Any]:
    """A channel as it is now. `connected` is for what an application holds open, a socket or a poll."""
    connected = {} if state.kind is Kind.WEBHOOK else {"connected": state.connected}
    return {
        "kind": state.kind,
        **connected,
        "queue_size": state.queue_size,
        "dropped": state.dropped,
        "serialization": stored(state.serialization).as_json(),
        **({} if failing is None else _failing(failing)),
    }


def deliveries_body(deliveries: list[Delivery]) -> dict[str, Any]:
    return {"deliveries": [_delivery(delivery) for delivery in deliveries]}


def _failing(failing: Failing) -> dict[str, Any]:
    next_try = (
        {} if failing.next_attempt_ms is None else {"next_attempt_at": moment_text(failing.next_attempt_ms)}
    )
    return {
        "failing_since": moment_text(failing.since_ms),
        "failed_attempts": failing.failed_attempts,
        **next_try,
    }


def _delivery(delivery: Delivery) -> dict[str, Any]:
    return {
        "at": moment_text(delivery.at_ms),
        "webhook_id": delivery.webhook_id,
        "batch": delivery.count,
        "status": delivery.status,
        "error": delivery.error,
        "took_ms": delivery.took_ms,
        "next_attempt_at": None
        if delivery.next_attempt_ms is None
        else moment_text(delivery.next_attempt_ms),
    }
