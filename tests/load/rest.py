"""Creates a run's accounts, API keys and channels by REST, over a few connections."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import orjson

from tests.load.connections import HttpConnection, Refused
from tests.load.messages import endpoint_name, request

_CONNECTIONS = 16
_EVENTS_AT_ONCE = 500
_LONG_AGO = "2020-01-01T00:00:00Z"

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Key:
    """An API key."""

    id: str
    secret: str = field(repr=False)


class Rest:
    """Concurrent requests to the gateways."""

    def __init__(self, gateways: Sequence[str], admin_token: str) -> None:
        self._gateways = gateways
        self._admin_token = admin_token
        self._free: asyncio.Queue[tuple[str, HttpConnection | None]] = asyncio.Queue()
        for number in range(_CONNECTIONS):
            self._free.put_nowait((gateways[number % len(gateways)], None))

    async def call(
        self, method: str, path: str, *, token: str | None = None, json: object = None, want: Sequence[int]
    ) -> Any:
        """The response's body. Raises Refused if the status is not in `want`."""
        body = b"" if json is None else orjson.dumps(json)
        url, connection = await self._free.get()
        try:
            if connection is None or not connection.open_now:
                connection = await HttpConnection.open(url)
            reply = await connection.request(
                request(method, url + path, token=token or self._admin_token, body=body)
            )
        finally:
            self._free.put_nowait((url, connection))
        if reply.status not in want:
            raise Refused(f"{method} {path}: {reply.status} {reply.body[:300]!r}")
        return orjson.loads(reply.body) if reply.body[:1] in (b"{", b"[") else None

    async def close(self) -> None:
        """Closes all connections; a later call opens new ones."""
        for _ in range(self._free.qsize()):
            url, connection = self._free.get_nowait()
            if connection is not None:
                connection.close()
            self._free.put_nowait((url, None))


class ApiKeys:
    """A new account with one API key that publishes and one for each channel; and further accounts."""

    def __init__(self, rest: Rest, *, each: Callable[[], None] = lambda: None) -> None:
        self._rest = rest
        self._each = each
        self.account = ""
        self.publisher = Key("", "")
        self.receivers: list[Key] = []
        self._made: list[Key] = []
        self._own_admin: Key | None = None
        self._native: list[str] = []
        self._elsewhere: set[str] = set()
        """Keys of further accounts."""

    async def create(self, channels: int) -> None:
        """Creates account and API keys; no channels."""
        self.account = account = await self._new_account()
        self._own_admin = await self._key(account, "admin")
        self.publisher = await self._key(account, "publish")
        self.receivers = await self._for_all(range(channels), lambda _: self._key(account, "receive"))

    async def add_accounts(self, count: int) -> list[Key]:
        """Creates more accounts, each with a further receiver; returns each account's key that publishes."""

        async def one(_: int) -> tuple[Key, Key]:
            account = await self._new_account()
            return await self._key(account, "publish"), await self._key(account, "receive")

        made = await self._for_all(range(count), one)
        self.receivers += [receiver for _, receiver in made]
        self._elsewhere |= {key.id for pair in made for key in pair}
        return [publisher for publisher, _ in made]

    async def register(self, numbers: Sequence[int]) -> None:
        """Registers WebSocket channels for these receivers."""
        await self._for_all(numbers, self._register)

    async def register_webhooks(self, urls: Mapping[int, str]) -> None:
        """Registers webhooks; each gets one test request."""

        async def one(number: int) -> None:
            token, json = self.receivers[number].secret, {"url": urls[number]}
            await self._rest.call("PUT", "/v2/notification/callback", token=token, json=json, want=(204,))

        await self._for_all(list(urls), one)

    async def create_webhooks(
        self, urls: Mapping[int, str], *, bindings: Sequence[str] = (), **webhook: object
    ) -> dict[int, str]:
        """Creates native webhooks of the account; returns their ids."""

        async def one(number: int) -> tuple[int, str]:
            target = {"url": urls[number], "format": "pelion", **webhook}
            return number, await self._create_channel("webhook", bindings, webhook=target)

        return dict(await self._for_all(list(urls), one))

    async def create_sockets(self, bindings: Mapping[int, str]) -> dict[int, str]:
        """Creates WebSocket channels of the account, each with one binding; returns their ids."""

        async def one(number: int) -> tuple[int, str]:
            return number, await self._create_channel("websocket", [bindings[number]])

        return dict(await self._for_all(list(bindings), one))

    async def owner(self) -> str:
        """The secret of a new key that may open the account's channels."""
        return (await self._key(self.account, "channels")).secret

    async def _create_channel(self, kind: str, bindings: Sequence[str], **more: object) -> str:
        body = {"kind": kind, "bindings": list(bindings), **more}
        made = await self._rest.call("POST", f"/v1/channels?account={self.account}", json=body, want=(201,))
        self._native.append(made["id"])
        return str(made["id"])

    async def retain(self, topic: str, count: int) -> None:
        """Publishes so many events to a topic of the account that is retained."""
        rules = [{"topics": [topic], "keep": {"count": count, "age_s": 3600}}]
        await self._rest.call("PUT", f"/v1/streams?account={self.account}", json=rules, want=(204,))
        events = [{"topic": topic, "data": number} for number in range(count)]
        for start in range(0, count, _EVENTS_AT_ONCE):
            some = events[start : start + _EVENTS_AT_ONCE]
            await self._rest.call("POST", "/v1/events", token=self.publisher.secret, json=some, want=(202,))

    async def read_streams(self, pattern: str, count: int) -> None:
        """Topics of the pattern are retained, so many events each, and the receivers may read them."""
        rules = [{"topics": [pattern], "keep": {"count": count, "age_s": 3600}}]
        await self._rest.call("PUT", f"/v1/streams?account={self.account}", json=rules, want=(204,))
        for key in self.receivers:
            await self._rest.call("PUT", "/v1/bindings", token=key.secret, json=[pattern], want=(204,))

    async def replay(self, channel: str, topic: str) -> None:
        """Begins a replay of everything that the topic has."""
        body = {"since": _LONG_AGO, "topics": [topic]}
        await self._rest.call("POST", f"/v1/channels/{channel}/replay", json=body, want=(202,))

    async def end_replay(self, channel: str) -> None:
        """Cancels the replay, and drops what it has queued."""
        await self._rest.call("DELETE", f"/v1/channels/{channel}/replay", want=(204, 404))
        await self._rest.call("POST", f"/v1/channels/{channel}/purge", want=(200,))

    async def subscribe(self, numbers: Sequence[int], *, to: Callable[[int], int] = lambda n: n) -> None:
        """Subscribes each channel to the target that `to` names."""

        async def one(number: int) -> None:
            token, json = self.receivers[number].secret, [{"endpoint-name": endpoint_name(to(number))}]
            await self._rest.call("PUT", "/v2/subscriptions", token=token, json=json, want=(204,))

        await self._for_all(numbers, one)

    async def queue_size(self, number: int) -> int:
        response = await self._rest.call(
            "GET", "/v2/notification/websocket", token=self.receivers[number].secret, want=(200,)
        )
        return int(response["queue_size"])

    async def revoke_all(self) -> None:
        """Revokes all keys; a running installation keeps only the empty accounts.

        By a key of the account where it can: the admin token may have been rotated during the run.
        """
        admin, token = self._own_admin, None if self._own_admin is None else self._own_admin.secret

        async def one(key: Key, token: str | None) -> None:
            await self._rest.call("DELETE", f"/v1/api-keys/{key.id}", token=token, want=(204, 404))

        async def drop(channel: str) -> None:
            await self._rest.call("DELETE", f"/v1/channels/{channel}", token=token, want=(204, 404))

        await self._for_all(self._native, drop)
        others = [key for key in self._made if key is not admin]
        ours = {self.publisher.id, *(key.id for key in self.receivers)} - self._elsewhere
        await self._for_all(others, lambda key: one(key, token if key.id in ours else None))
        if admin is not None:
            await one(admin, token)

    async def _new_account(self) -> str:
        account = await self._rest.call("POST", "/v1/accounts", json={"name": "load"}, want=(201,))
        return str(account["id"])

    async def _key(self, account: str, scope: str) -> Key:
        path = f"/v1/accounts/{account}/api-keys"
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
