"""Channels of an account, through the API."""

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from tests.harness.api import Api, ApiKey, Response
from tests.harness.sockets import Receiver
from tests.harness.waiting import wait_until


@dataclass(frozen=True)
class Fetch:
    """What a fetch of a pull channel got."""

    events: list[dict[str, Any]]
    lease: str | None
    ack_by: str | None

    @property
    def entries(self) -> list[str]:
        return [event["entry"] for event in self.events]

    @property
    def numbers(self) -> list[int]:
        return [event["data"]["number"] for event in self.events]


@dataclass
class AccountChannels:
    """What a key with the scope `channels` sees."""

    api: Api
    key: ApiKey

    async def call(self, method: str, rest: str = "", **content: Any) -> Response:
        return await self.api.call(method, f"/v1/channels{rest}", key=self.key, **content)

    async def create(self, kind: str = "websocket", **more: Any) -> dict[str, Any]:
        response = await self.call("POST", json={"kind": kind, **more})
        assert response.status == 201, response.text
        made: dict[str, Any] = response.json
        return made

    async def get(self, channel: str) -> dict[str, Any]:
        response = await self.call("GET", f"/{quote(channel, safe='')}")
        assert response.status == 200, response.text
        found: dict[str, Any] = response.json
        return found

    async def do(self, channel: str, what: str, status: int = 204) -> Response:
        response = await self.call("POST", f"/{quote(channel, safe='')}/{what}")
        assert response.status == status, response.text
        return response

    async def post(self, channel: str, what: str, **body: Any) -> Response:
        return await self.call("POST", f"/{quote(channel, safe='')}/{what}", json=body)

    async def fetch(self, channel: str, **body: Any) -> "Fetch":
        """A fetch that is not refused."""
        response = await self.post(channel, "fetch", **body)
        assert response.status == 200, response.text
        return Fetch(**response.json)

    async def until(self, channel: str, **wanted: Any) -> None:
        """Waits until the channel shows these fields: values, or ranges of numbers."""
        shown: dict[str, Any] = {}

        async def is_reached() -> bool:
            shown.update(await self.get(channel))
            return all(
                shown.get(name) in value if isinstance(value, range) else shown.get(name) == value
                for name, value in wanted.items()
            )

        await wait_until(is_reached, what=lambda: f"{wanted}, but the channel is {shown}")


@dataclass
class Sockets:
    """Opens sockets of channels on one edge."""

    url: str
    opened: list[Receiver] = field(default_factory=list)

    async def open(self, key: ApiKey, channel: str) -> Receiver:
        offered = ("wss", f"pelion_{key.secret}")
        receiver = await Receiver.open_as(self.url, *offered, query=f"?channel={quote(channel, safe='')}")
        self.opened.append(receiver)
        return receiver
