"""What the REST side answers about a channel (section 2)."""

from typing import Any

from shared.model.callbacks import Callback
from shared.model.channels import ChannelState, Kind
from shared.wire.pelion.serialization import stored

_MECHANISMS = {Kind.WEBSOCKET: "WEB_SOCKET", Kind.WEBHOOK: "CALLBACK", Kind.PULL: "LONG_POLLING"}


def websocket_channel(state: ChannelState) -> dict[str, Any]:
    """The WebsocketChannel object, with a true status and queue size; `dropped` is ours."""
    return {
        "status": "connected" if state.connected else "disconnected",
        "queue_size": state.queue_size,
        "serialization": stored(state.serialization).as_json(),
        "dropped": state.dropped,
    }


def webhook(callback: Callback, serialization: bytes) -> dict[str, Any]:
    """The Webhook object: URL and headers as they were put."""
    return {
        "url": callback.url,
        "headers": dict(callback.headers),
        "serialization": stored(serialization).as_json(),
    }


def channel_metadata(kind: Kind) -> dict[str, str]:
    return {"delivery_mechanism": _MECHANISMS[kind]}
