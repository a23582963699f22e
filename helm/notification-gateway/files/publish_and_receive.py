"""`helm test`: makes a new API key, publishes to it, and receives the event on a WebSocket.

Usage: python publish_and_receive.py GATEWAY_URL EDGE_URL, with the admin token in NOTIFY_ADMIN_TOKEN.
"""

import asyncio
import base64
import os
import sys
import uuid
from typing import Any

import aiohttp

WITHIN_S = 60


async def call(http: aiohttp.ClientSession, method: str, url: str, secret: str, body: Any = None) -> Any:
    """The response's JSON, or None without a body. Exits with an error unless it succeeded."""
    headers = {"Authorization": f"Bearer {secret}"}
    async with http.request(method, url, json=body, headers=headers) as response:
        text = await response.text()
        if response.status >= 300:
            raise SystemExit(f"failed: {method} {url} returned {response.status}: {text}")
        print(f"{method} {url}: {response.status}", flush=True)
        return await response.json(content_type=None) if text else None


async def receive(
    http: aiohttp.ClientSession, edge: str, secret: str, *, publish: Any, expected: str
) -> None:
    """Opens the socket, calls `publish`, and waits for a frame that contains `expected`."""
    connect = f"{edge}/v2/notification/websocket-connect"
    headers = {"Authorization": f"Bearer {secret}"}
    async with http.ws_connect(connect, headers=headers) as socket:
        print(f"connected to {connect}", flush=True)
        await publish()
        async for message in socket:
            if expected in str(message.data):
                print("received the published event", flush=True)
                return
    raise SystemExit("failed: the socket closed before the published event arrived")


async def main(gateway: str, edge: str, admin_token: str) -> None:
    payload = base64.b64encode(uuid.uuid4().bytes).decode()
    item = {"ep": "helm-test", "path": "/3303/0/5700", "ct": "text/plain", "payload": payload}
    async with aiohttp.ClientSession() as http:
        account = await call(http, "POST", f"{gateway}/v1/accounts", admin_token, {"name": "helm test"})
        keys = f"{gateway}/v1/accounts/{account['id']}/api-keys"
        wanted = {"name": "helm test", "scopes": ["publish", "receive"]}
        key = await call(http, "POST", keys, admin_token, wanted)
        secret = key["secret"]
        try:
            await call(http, "PUT", f"{gateway}/v2/notification/websocket", secret)
            event = {"topic": "device.notifications", "data": item, "to": key["id"]}

            async def publish() -> None:
                await call(http, "POST", f"{gateway}/v1/events", secret, event)

            async with asyncio.timeout(WITHIN_S):
                await receive(http, edge, secret, publish=publish, expected=payload)
        finally:
            await call(http, "DELETE", f"{gateway}/v1/api-keys/{key['id']}", admin_token)


if __name__ == "__main__":
    gateway_url, edge_url = sys.argv[1:]
    asyncio.run(main(gateway_url, edge_url, os.environ["NOTIFY_ADMIN_TOKEN"]))
