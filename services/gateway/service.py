"""Starts and stops a gateway."""

import asyncio

from redis.asyncio import Redis

from services.composition import build_outbound, build_stores, serve_app
from services.gateway.app import gateway_app
from services.gateway.authenticator import Authenticator
from services.gateway.context import Context
from services.gateway.endpoint_verification import EndpointVerifier
from services.gateway.idempotency import Once
from shared.outbound import Outbound
from shared.runtime.http.health import health_routes
from shared.runtime.http.metrics_server import metrics_server
from shared.runtime.http.server import listener
from shared.runtime.settings import Settings


def make_context(settings: Settings, redis: Redis, *, admin_token: str, outbound: Outbound) -> Context:
    stores = build_stores(settings, redis)
    return Context(
        api_keys=stores.api_keys,
        channels=stores.channels,
        wakeups=stores.wakeups,
        once=Once(stores.idempotency),
        principals=stores.principals,
        authenticator=Authenticator(stores.api_keys, admin_token=admin_token),
        queues=stores.queues,
        receipts=stores.receipts,
        replica=settings.replica,
        routing=stores.routing,
        sessions=stores.sessions,
        endpoint_verifier=EndpointVerifier(outbound),
        webhooks=stores.webhooks,
    )


async def run(settings: Settings, redis: Redis, stop: asyncio.Event) -> None:
    """Serves requests on PORT until `stop`."""
    assert settings.admin_token is not None
    admin_token = settings.admin_token.get_secret_value()
    listening = listener(settings.host, settings.port)
    async with metrics_server(settings.host, settings.metrics_port), build_outbound(settings) as outbound:
        context = make_context(settings, redis, admin_token=admin_token, outbound=outbound)
        health = health_routes(lambda: not stop.is_set(), metrics_port=settings.metrics_port)
        await serve_app(gateway_app(context, more=[*health]), listening, settings, stop=stop)
