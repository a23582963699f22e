"""A client of `GET /v1/stream` that keeps what it reads."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Self

import aiohttp

from tests.harness.api import Api, ApiKey
from tests.harness.event_stream import EventStreamParser, Message
from tests.harness.waiting import wait_until

STREAM = "/v1/stream"
TOPIC, OTHER = "orders.paid", "orders.sent"
NO_LIMIT = aiohttp.ClientTimeout(total=None, sock_connect=20)


class StreamClient:
    """One response, read as it comes."""

    def __init__(self, response: aiohttp.ClientResponse, last_event_id: str) -> None:
        self.response = response
        self.parser = EventStreamParser(last_event_id)
        self.has_ended = False
        self._may_read = asyncio.Event()
        self._may_read.set()
        self._task = asyncio.create_task(self._read())

    @classmethod
    async def open(
        cls,
        http: aiohttp.ClientSession,
        url: str,
        key: ApiKey | None,
        *topics: str,
        last_event_id: str = "",
        **options: Any,
    ) -> Self:
        """The response has a 200."""
        response = await ask(
            http, url, None if key is None else key.secret, *topics, last_event_id=last_event_id, **options
        )
        assert response.status == 200, await response.text()
        return cls(response, last_event_id)

    async def _read(self) -> None:
        with contextlib.suppress(aiohttp.ClientError, OSError):
            async for piece in self.response.content.iter_any():
                self.parser.feed(piece)
                await self._may_read.wait()
        self.has_ended = True

    def pause(self) -> None:
        """Reads no more than what is on its way to the parser."""
        self._may_read.clear()

    def go_on(self) -> None:
        self._may_read.set()

    @property
    def last_event_id(self) -> str:
        return self.parser.last_event_id

    def of(self, kind: str) -> list[Message]:
        return [message for message in self.parser.messages if message.type == kind]

    @property
    def events(self) -> list[dict[str, Any]]:
        return [message.json for message in self.of("message")]

    @property
    def data(self) -> list[Any]:
        return [event["data"] for event in self.events]

    @property
    def recovered(self) -> list[dict[str, Any]]:
        return [message.json for message in self.of("recovered")]

    @property
    def ends(self) -> list[str]:
        """The reasons of `end`, or that it was an overflow."""
        return [
            message.json.get("reason", message.type)
            for message in self.parser.messages
            if message.type in ("end", "overflow")
        ]

    async def until_begun(self, topics: int = 1) -> None:
        """Every topic has begun: what is published from now on comes."""
        await wait_until(lambda: len(self.recovered) >= topics, what=lambda: self.parser)

    async def until_data(self, data: Sequence[Any], *, within_s: float = 20) -> None:
        """Exactly these, in this order."""
        await wait_until(lambda: len(self.data) >= len(data), within_s=within_s, what=lambda: self.data)
        assert self.data == list(data)

    async def until_count(self, count: int) -> None:
        """So many events have come."""
        await wait_until(lambda: len(self.of("message")) >= count, what=lambda: self.parser.messages[-1:])

    async def until_end(self, *, within_s: float = 20) -> None:
        await wait_until(lambda: self.has_ended, within_s=within_s, what=lambda: self.parser.messages[-3:])

    async def close(self) -> None:
        self.response.close()
        self._task.cancel()
        await asyncio.wait([self._task])


async def ask(
    http: aiohttp.ClientSession,
    url: str,
    secret: str | None,
    *topics: str,
    last_event_id: str = "",
    id_in_query: bool = False,
    begin: str | None = None,
    ticket: str = "",
    headers: dict[str, str] | None = None,
) -> aiohttp.ClientResponse:
    """The response, of which the head has come. `begin` is the parameter `from`."""
    sent = dict(headers or {})
    params = [("topic", topic) for topic in topics]
    if secret is not None:
        sent["Authorization"] = f"Bearer {secret}"
    if ticket:
        params.append(("ticket", ticket))
    if begin is not None:
        params.append(("from", begin))
    if last_event_id and id_in_query:
        params.append(("last_event_id", last_event_id))
    elif last_event_id:
        sent["Last-Event-ID"] = last_event_id
    return await http.get(f"{url}{STREAM}", params=params, headers=sent, timeout=NO_LIMIT)


async def bind(api: Api, key: ApiKey, *patterns: Any) -> None:
    """The key's own bindings."""
    response = await api.call("PUT", "/v1/bindings", key=key, json=list(patterns))
    assert response.status == 204, response.text


async def keep(api: Api, key: ApiKey, *patterns: str, **keep: int) -> None:
    """A rule of the key's account."""
    rules = [{"topics": list(patterns), "keep": {"count": 1000, "age_s": 3600, **keep}}]
    response = await api.call("PUT", "/v1/streams", key=key, json=rules)
    assert response.status == 204, response.text


async def publish(api: Api, key: ApiKey, *data: Any, topic: str = TOPIC, **more: Any) -> list[str]:
    """Publishes events; their offsets."""
    events = [{"topic": topic, "data": each, **more} for each in data]
    response = await api.call("POST", "/v1/events", key=key, json=events)
    assert response.status == 202, response.text
    return [event["stream"]["offset"] for event in response.json["events"]]


Read = Callable[..., Awaitable[StreamClient]]
