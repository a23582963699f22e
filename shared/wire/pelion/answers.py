"""What the REST side answers about a channel (section 2)."""

from typing import Any

from shared.model.channels import ChannelState, Kind

_MECHANISMS = {Kind.WEBSOCKET: "WEB_SOCKET"}
_SERIALIZATION = {
    "type": "v2",
    "max_chunk_size": 10_000,
    "cfg": {
        "deregistrations_as_object": False,
        "include_uid": False,
        "include_timestamp": False,
        "include_original_ep": False,
    },
}


def websocket_channel(state: ChannelState) -> dict[str, Any]:
    """The WebsocketChannel object, with a true status and queue size."""
    return {
        "status": "connected" if state.connected else "disconnected",
        "queue_size": state.queue_size,
        "serialization": _SERIALIZATION,
    }


def channel_metadata(kind: Kind) -> dict[str, str]:
    return {"delivery_mechanism": _MECHANISMS[kind]}
