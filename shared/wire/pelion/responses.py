"""Response bodies of /v2/notification: the channel in the words of the Pelion service (section 2)."""

from typing import Literal

from shared.model.callbacks import Callback
from shared.model.channels import ChannelState, Kind
from shared.wire.models import Closed, Count
from shared.wire.pelion.serialization import Serialization, stored


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
        queue_size=state.queue_size,
        serialization=stored(state.serialization),
        dropped=state.dropped,
    )


def webhook(callback: Callback, serialization: bytes) -> Webhook:
    return Webhook(callback.url, dict(callback.headers), stored(serialization))
