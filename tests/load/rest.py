"""Accounts, API keys and channels for a run, made by REST through a few kept connections."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import orjson

from tests.load.messages import endpoint_name, request
from tests.load.wire import HttpConnection, Refused

_CONNECTIONS = 16

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Key:
    """An API key."""

    id: str
    secret: str = field(repr=False)


class Rest:
    """Pipeline to the gateways, several at once."""

    def __init__(self, gateways: Sequence[str], admin_token: str) -> None:
        self._gateways = gateways
        self._admin_token = admin_token
        self._free: asyncio.Queue[tuple[str, HttpConnection | None]] = asyncio.Queue()
        for number in range(_CONNECTIONS):
            self._free.put_nowait((gateways[number % len(gateways)], None))

    async def call(
        self, method: str, path: str, *, token: str | None = None, json: object = None, want: Sequence[int]
    ) -> Any:
        """The answer's body. Raises Refused when the status is none of `want`."""
        body = b"" if json is None else orjson.dumps(json)
        url, connection = await self._free.get()
        try:
            if connection is None or not connection.open_now:
                connection = await HttpConnection.open(url)
            reply = await connection.ask(
                request(method, url + path, token=token or self._admin_token, body=body)
            )
        finally:
            self._free.put_nowait((url, connection))
        if reply.status not in want:
            raise Refused(f"{method} {path}: {reply.status} {reply.body[:300]!r}")
        return orjson.loads(reply.body) if reply.body[:1] in (b"{", b"[") else None

    async def close(self) -> None:
        """A later call would open its connection anew."""
        for _ in range(self._free.qsize()):
            url, connection = self._free.get_nowait()
            if connection is not None:
                connection.close()
            self._free.put_nowait((url, None))


class Parties:
    """An account of the run's own: one API key that publishes, and one for each channel."""

    def __init__(self, rest: Rest, *, each: Callable[[], None] = lambda: None) -> None:
        self._rest = rest
        self._each = each
        self._account = ""
        self.publisher = Key("", "")
        self.receivers: list[Key] = []
        self._made: list[Key] = []

    async def introduce(self, channels: int) -> None:
        """Makes the API keys; no channel yet."""
        account = await self._rest.call("POST", "/v1/accounts", json={"name": "load"}, want=(201,))
        self._account = account["id"]
        self.publisher = await self._key("publish")
        self.receivers = await self._for_all(range(channels), lambda _: self._key("receive"))

    async def register(self, numbers: Sequence[int]) -> None:
        """WebSocket channels for these of the receivers."""
        await self._for_all(numbers, self._register)

    async def register_webhooks(self, urls: Mapping[int, str]) -> None:
        """Each receiver's webhook; it is called once on the way."""

        async def one(number: int) -> None:
            token, json = self.receivers[number].secret, {"url": urls[number]}
            await self._rest.call("PUT", "/v2/notification/callback", token=token, json=json, want=(204,))

        await self._for_all(list(urls), one)

    async def subscribe(self, numbers: Sequence[int], *, to: Callable[[int], int] = lambda n: n) -> None:
        """Each gets what is for the target that `to` names."""

        async def one(number: int) -> None:
            token, json = self.receivers[number].secret, [{"endpoint-name": endpoint_name(to(number))}]
            await self._rest.call("PUT", "/v2/subscriptions", token=token, json=json, want=(204,))

        await self._for_all(numbers, one)

    async def queue_size(self, number: int) -> int:
        response = await self._rest.call(
            "GET", "/v2/notification/websocket", token=self.receivers[number].secret, want=(200,)
        )
        return int(response["queue_size"])

    async def leave(self) -> None:
        """Revokes what was made, so that a deployment is left as it was, but for an empty account."""

        async def one(key: Key) -> None:
            await self._rest.call("DELETE", f"/v1/api-keys/{key.id}", want=(204, 404))

        await self._for_all(self._made, one)

    async def _key(self, scope: str) -> Key:
        path = f"/v1/accounts/{self._account}/api-keys"
        made = await self._rest.call("POST", path, json={"name": "load", "scopes": [scope]}, want=(201,))
        key = Key(made["id"], made["secret"])
        self._made.append(key)
        return key

    async def _register(self, number: int) -> None:
        token = self.receivers[number].secret
        await self._rest.call("PUT", "/v2/notification/websocket", token=token, want=(200, 201))

    async def _for_all(self, items: Sequence[T], do: Callable[[T], Awaitable[R]]) -> list[R]:
        async def one(item: T) -> R:
            try:
                return await do(item)
            finally:
                self._each()

        return list(await asyncio.gather(*(one(item) for item in items)))
