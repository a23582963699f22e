"""`helm test`: an application that is new to this installation is published to, and receives it.

python publish_and_receive.py GATEWAY_URL EDGE_URL, with the admin token in NOTIFY_ADMIN_TOKEN.
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
    """The answer's JSON, if it has any. Says what was asked and answered when that is not a success."""
    headers = {"Authorization": f"Bearer {secret}"}
    async with http.request(method, url, json=body, headers=headers) as answer:
        text = await answer.text()
        if answer.status >= 300:
            raise SystemExit(f"failed: {method} {url} was answered {answer.status}: {text}")
        print(f"{method} {url}: {answer.status}", flush=True)
        return await answer.json(content_type=None) if text else None


async def receive(http: aiohttp.ClientSession, edge: str, secret: str, *, then: Any, wanted: str) -> None:
    """Opens the socket, publishes by `then`, and waits until what was `wanted` has come."""
    connect = f"{edge}/v2/notification/websocket-connect"
    headers = {"Authorization": f"Bearer {secret}"}
    async with http.ws_connect(connect, headers=headers) as socket:
        print(f"connected to {connect}", flush=True)
        await then()
        async for message in socket:
            if wanted in str(message.data):
                print("received what was published", flush=True)
                return
    raise SystemExit("failed: the socket closed before what was published had come")


async def main(gateway: str, edge: str, admin_token: str) -> None:
    payload = base64.b64encode(uuid.uuid4().bytes).decode()
    item = {"ep": "helm-test", "path": "/3303/0/5700", "ct": "text/plain", "payload": payload}
    async with aiohttp.ClientSession() as http:
        account = await call(http, "POST", f"{gateway}/v1/accounts", admin_token, {"name": "helm test"})
        keys = f"{gateway}/v1/accounts/{account['id']}/api-keys"
        asked = {"name": "helm test", "scopes": ["publish", "receive"]}
        key = await call(http, "POST", keys, admin_token, asked)
        secret = key["secret"]
        try:
            await call(http, "PUT", f"{gateway}/v2/notification/websocket", secret)
            event = {"topic": "device.notifications", "data": item, "to": key["id"]}

            async def publish() -> None:
                await call(http, "POST", f"{gateway}/v1/events", secret, event)

            async with asyncio.timeout(WITHIN_S):
                await receive(http, edge, secret, then=publish, wanted=payload)
        finally:
            await call(http, "DELETE", f"{gateway}/v1/api-keys/{key['id']}", admin_token)


if __name__ == "__main__":
    gateway_url, edge_url = sys.argv[1:]
    asyncio.run(main(gateway_url, edge_url, os.environ["NOTIFY_ADMIN_TOKEN"]))
