"""The gateway's HTTP API through a stock HTTP client."""

import json as json_module
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import aiohttp
from yarl import URL

from tests.harness.events import Event
from tests.harness.waiting import wait_until

SECRETS: list[str] = []
"""All API key secrets created in this process, for tests that search for leaks."""

SERVER_TEXTS: list[str] = []
"""All headers and close reasons that servers have sent, for tests that search for leaks."""


@dataclass(frozen=True)
class Response:
    """One HTTP response."""

    status: int
    headers: Mapping[str, str]
    text: str

    @property
    def json(self) -> Any:
        return json_module.loads(self.text)


@dataclass(frozen=True)
class ApiKey:
    """An API key; its repr hides the secret."""

    id: str
    account: str
    secret: str = field(repr=False)


class Api:
    """A client of one gateway (or of `all`)."""

    def __init__(self, http: aiohttp.ClientSession, url: str, admin_token: str) -> None:
        self._http = http
        self.url = url
        self._admin_token = admin_token

    def at(self, url: str) -> "Api":
        """A client of another process of the same installation."""
        return Api(self._http, url, self._admin_token)

    async def call(
        self,
        method: str,
        path: str | URL,
        *,
        key: ApiKey | None = None,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
        **content: Any,
    ) -> Response:
        """Sends a request with `json=` or `data=`; `token` overrides the key's secret.

        The client library changes the percent-encoding of a path, but not of a whole `URL(…, encoded=True)`.
        """
        sent = dict(headers or {})
        if token is None and key is not None:
            token = key.secret
        if token is not None:
            sent["Authorization"] = f"Bearer {token}"
        url = path if isinstance(path, URL) else self.url + path
        async with self._http.request(method, url, headers=sent, **content) as response:
            SERVER_TEXTS.append(str(response.headers))
            return Response(response.status, response.headers, await response.text())

    async def admin(self, method: str, path: str, **content: Any) -> Response:
        return await self.call(method, path, token=self._admin_token, **content)

    async def account(self, name: str = "acme", *, parent: str | None = None, master: bool = False) -> str:
        """Creates an account; returns its id."""
        body = {"name": name, "parent": parent, "master": master}
        response = _expect(await self.admin("POST", "/v1/accounts", json=body), 201)
        return str(response.json["id"])

    async def api_key(
        self, *, account: str | None = None, scopes: tuple[str, ...] = ("publish", "receive")
    ) -> ApiKey:
        """Creates an API key, by default in a new account."""
        account = account or await self.account()
        response = await self.admin(
            "POST", f"/v1/accounts/{account}/api-keys", json={"name": "tests", "scopes": list(scopes)}
        )
        made = _expect(response, 201).json
        SECRETS.append(made["secret"])
        return ApiKey(id=made["id"], account=account, secret=made["secret"])

    async def revoke(self, key: ApiKey) -> None:
        _expect(await self.admin("DELETE", f"/v1/api-keys/{key.id}"), 204)

    async def post_events(self, key: ApiKey, events: object) -> Response:
        return await self.call("POST", "/v1/events", key=key, json=events)

    async def publish(self, key: ApiKey, *events: Event) -> list[int]:
        """Publishes; returns the number of channels each event was queued for."""
        response = _expect(await self.post_events(key, list(events)), 202)
        receipts = response.json["events"]
        assert len(receipts) == len(events), response.text[:1000]
        return [receipt["channels"] for receipt in receipts]

    async def receipt(self, key: ApiKey, event_id: str) -> Response:
        """The receipt of an event."""
        return await self.call("GET", f"/v1/events/{quote(event_id, safe='')}", key=key)

    async def register(self, key: ApiKey) -> Response:
        """Registers the WebSocket channel: 201 if it is new, else 200."""
        response = await self.call("PUT", "/v2/notification/websocket", key=key)
        assert response.status in (200, 201), response
        return response

    async def put_callback(self, key: ApiKey, url: str, **more: Any) -> Response:
        return await self.call("PUT", "/v2/notification/callback", key=key, json={"url": url, **more})

    async def callback(self, key: ApiKey) -> Response:
        return await self.call("GET", "/v2/notification/callback", key=key)

    async def delete_callback(self, key: ApiKey) -> Response:
        return await self.call("DELETE", "/v2/notification/callback", key=key)

    async def register_webhook(self, key: ApiKey, url: str, **more: Any) -> None:
        """Registers a webhook, which gets a test request; `more`: headers and serialization."""
        _expect(await self.put_callback(key, url, **more), 204)

    async def channel(self, key: ApiKey) -> Response:
        return await self.call("GET", "/v2/notification/websocket", key=key)

    async def delete_channel(self, key: ApiKey) -> Response:
        return await self.call("DELETE", "/v2/notification/websocket", key=key)

    async def queue_size(self, key: ApiKey) -> int:
        return int(_expect(await self.channel(key), 200).json["queue_size"])

    async def status(self, key: ApiKey) -> str:
        return str(_expect(await self.channel(key), 200).json["status"])

    async def until(
        self, key: ApiKey, *, status: str | None = None, queue_size: int | None = None, within_s: float = 20
    ) -> None:
        """Waits until the channel has this status and queue size."""
        wanted = {"status": status, "queue_size": queue_size}
        shown: dict[str, Any] = {}

        async def is_reached() -> bool:
            shown.update(_expect(await self.channel(key), 200).json)
            return all(value is None or shown[name] == value for name, value in wanted.items())

        await wait_until(is_reached, within_s=within_s, what=lambda: f"{wanted}, but the channel is {shown}")

    async def put_subscriptions(self, key: ApiKey, subscriptions: object) -> Response:
        return await self.call("PUT", "/v2/subscriptions", key=key, json=subscriptions)

    async def subscribe(self, key: ApiKey, *subscriptions: dict[str, Any]) -> None:
        """Replaces all presubscriptions of the API key."""
        _expect(await self.put_subscriptions(key, list(subscriptions)), 204)

    async def subscriptions(self, key: ApiKey) -> Any:
        return _expect(await self.call("GET", "/v2/subscriptions", key=key), 200).json


def _expect(response: Response, status: int) -> Response:
    assert response.status == status, f"expected {status}: {response.status} {response.text[:2000]}"
    return response
