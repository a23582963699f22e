"""All services in one process on one origin, for a laptop: `python -m services all`."""

import asyncio
import json
import os
import secrets
import shlex
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.types import ASGIApp

from services.expiry_reaper.service import reaping
from services.gateway.accounts import new_account
from services.gateway.api_keys import new_api_key
from services.gateway.app import gateway_app
from services.gateway.context import Context
from services.gateway.service import make_context, make_outbound
from services.socket_edge.app import by_kind, socket_app, upgrade_routes
from services.socket_edge.edge import Edge
from services.socket_edge.long_poll import pull_routes
from services.socket_edge.service import make_edge
from services.webhook_dispatcher.service import dispatching
from shared import telemetry
from shared.redis.client import connect
from shared.runtime.clock import now_ms
from shared.runtime.embedded import ValkeyFailed, embedded_valkey
from shared.runtime.http.cors import cross_origin
from shared.runtime.http.health import health_routes
from shared.runtime.http.metrics_server import metrics_server
from shared.runtime.http.request_log import RequestLog
from shared.runtime.http.server import listener, serve
from shared.runtime.settings import ADMIN_TOKEN_LENGTH, Settings
from shared.runtime.worker import jobs_redis

_ADMIN_TOKEN = "admin-token"  # noqa: S105 - the name of a file
_DEMO = "demo.json"


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Serves everything on PORT until `stop`, on the Redis at REDIS_URL or an embedded one, stopped last.

    Raises ValkeyFailed when the embedded one died by itself.
    """
    died = asyncio.Event()

    def stop_without_valkey() -> None:
        died.set()
        stop.set()

    async with _redis_url(settings, died=stop_without_valkey) as url:
        redis = connect(url)
        try:
            listening = listener(settings.host, settings.port)
            outbound = make_outbound(settings)
            context = make_context(settings, redis, admin_token=_admin_token(settings), outbound=outbound)
            edge = make_edge(settings, redis)
            app = _one_origin(context, edge, stop, metrics_port=settings.metrics_port)
            open_app = cross_origin(by_kind(app, socket_app(edge)), origins=settings.cors_origins)
            async with (
                metrics_server(settings.host, settings.metrics_port),
                outbound,
                jobs_redis(settings.jobs_redis_url, otherwise=redis) as jobs,
                edge.running(),
                dispatching(settings, redis, jobs),
                reaping(settings, redis, jobs),
            ):
                secret = await _demo_secret(context, settings.data_dir)
                await serve(
                    RequestLog(open_app, count=telemetry.request_answered),
                    listening,
                    stop=stop,
                    on_shutdown=edge.shutdown,
                    started=lambda: print(_welcome(settings, secret), flush=True),
                )
        finally:
            await redis.aclose()
    if died.is_set():
        raise ValkeyFailed(f"the embedded Valkey died; see {settings.data_dir / 'valkey.log'}")


def _one_origin(context: Context, edge: Edge, stop: asyncio.Event, *, metrics_port: int | None) -> ASGIApp:
    health = health_routes(lambda: not stop.is_set(), metrics_port=metrics_port)
    return gateway_app(context, more=[*upgrade_routes(edge), *pull_routes(edge), *health])


@asynccontextmanager
async def _redis_url(settings: Settings, *, died: Callable[[], None]) -> AsyncIterator[str]:
    if settings.redis_url is not None:
        yield settings.redis_url
        return
    async with embedded_valkey(settings.data_dir, died=died) as url:
        yield url


def _admin_token(settings: Settings) -> str:
    """The one that was set, or the one in the data folder, made at the first start."""
    if settings.admin_token is not None:
        return settings.admin_token.get_secret_value()
    kept = settings.data_dir / _ADMIN_TOKEN
    # A crash may have left an empty file; an empty token would be everybody's.
    if not kept.exists() or len(kept.read_text().strip()) < ADMIN_TOKEN_LENGTH:
        _write_private(kept, secrets.token_urlsafe(32))
    return kept.read_text().strip()


async def _demo_secret(context: Context, data_dir: Path) -> str:
    """The secret of the demo's API key; account and key are made when they are not there."""
    kept = data_dir / _DEMO
    if kept.exists():
        secret = _secret_in(kept.read_text())
        if await context.api_keys.authenticate(secret, now_ms=now_ms()):
            return secret
    account = await new_account(context.api_keys, {"name": "demo"})
    posted = {"name": "demo", "scopes": ["publish", "receive"]}
    key = await new_api_key(context.api_keys, account["id"], posted)
    _write_private(kept, json.dumps(key, indent=2) + "\n")
    return str(key["secret"])


def _secret_in(kept: str) -> str:
    try:
        return str(json.loads(kept)["secret"])
    except (ValueError, KeyError, TypeError):
        return ""


def _write_private(path: Path, text: str) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    whole = path.with_suffix(".new")
    with open(whole, "w", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(text)
    whole.replace(path)


def _welcome(settings: Settings, secret: str) -> str:
    address = f"[{settings.host}]" if ":" in settings.host else settings.host
    origin = f"http://{address}:{settings.port}"
    bearer = f"-H 'Authorization: Bearer {secret}'"
    python = os.path.relpath(sys.executable) if Path(sys.executable).is_relative_to(Path.cwd()) else "python3"
    kept = settings.data_dir / _ADMIN_TOKEN
    token = f"$(cat {shlex.quote(str(kept))})" if settings.admin_token is None else "$NOTIFY_ADMIN_TOKEN"
    item = '{"ep": "thermometer-1", "path": "/3303/0/5700", "ct": "text/plain", "payload": "MjEuNQ=="}'
    client = (
        "from websockets.sync.client import connect; "
        f'[print(frame, flush=True) for frame in connect("ws{origin.removeprefix("http")}'
        f'/v2/notification/websocket-connect", subprotocols=["wss", "pelion_{secret}"])]'
    )
    return f"""
The notification gateway listens on {origin} (Ctrl-C ends it; its data is in {settings.data_dir}/).

Register a channel, and subscribe it to every device:

  curl -X PUT {origin}/v2/notification/websocket {bearer}
  curl -X PUT {origin}/v2/subscriptions {bearer} -d '[{{"endpoint-name": "*"}}]'

Connect, in another terminal (with this or any WebSocket client):

  {python} -c '{client}'

Publish:

  curl -X POST {origin}/v1/events {bearer} -d '{{"topic": "device.notifications", "data": {item}}}'

Make accounts and API keys of your own with the admin token:

  curl -X POST {origin}/v1/accounts -H "Authorization: Bearer {token}" \\
    -d '{{"name": "my account"}}'
"""
