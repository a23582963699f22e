"""Bodies of /v2/notification: the channel in the words of the Pelion service (sections 2 and 8)."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from shared.model.callbacks import LONGEST, Callback
from shared.model.channels import ChannelState, Kind
from shared.wire.models import Closed, Count
from shared.wire.pelion.serialization import Serialization, SerializationWanted, stored

# A message without notifications. A URL must accept it before it is registered.
TEST_BODY = b"{}"

# `callback` checks the URL; this only documents the outlines of its rules.
_Url = Annotated[
    str,
    Meta(
        description=f"At most {LONGEST} characters, counted with the names and values of the headers.",
        extra_json_schema={"pattern": "^[Hh][Tt][Tt][Pp][Ss]?://", "maxLength": LONGEST},
    ),
]


class RegisterWebhook(Struct):
    """Unknown fields are ignored."""

    url: _Url
    headers: dict[str, str] | None = None
    serialization: SerializationWanted | None = None


class WebsocketChannel(Closed):
    """The service's object; `dropped` is our addition."""

    status: Literal["connected", "disconnected"]
    queue_size: Count
    serialization: Serialization
    dropped: Count


class Webhook(Closed):
    """URL and headers as they were put."""

    url: str
    headers: dict[str, str]
    serialization: Serialization


class ChannelMetadata(Closed):
    delivery_mechanism: Literal["CALLBACK", "LONG_POLLING", "WEB_SOCKET"]


CHANNEL_METADATA = {
    Kind.WEBSOCKET: ChannelMetadata("WEB_SOCKET"),
    Kind.WEBHOOK: ChannelMetadata("CALLBACK"),
    Kind.PULL: ChannelMetadata("LONG_POLLING"),
}


def websocket_channel(state: ChannelState) -> WebsocketChannel:
    return WebsocketChannel(
        status="connected" if state.connected else "disconnected",
        queue_size=state.pending,
        serialization=stored(state.serialization),
        dropped=state.dropped,
    )


def webhook(callback: Callback, serialization: bytes) -> Webhook:
    return Webhook(callback.url, dict(callback.headers), stored(serialization))


def is_json(content_type: str) -> bool:
    """May a body with this Content-Type be JSON? Many clients send none: then it may."""
    media_type = content_type.partition(";")[0].strip().lower()
    return media_type in ("", "application/json", "text/json") or media_type.endswith("+json")
