"""Starts and stops a gateway."""

import asyncio

from redis.asyncio import Redis

from services.gateway.app import gateway_app
from services.gateway.authenticator import Authenticator
from services.gateway.context import Context
from services.gateway.endpoint_verification import EndpointVerifier
from services.gateway.idempotency import Once
from shared import telemetry
from shared.model.addresses import AddressPolicy
from shared.outbound.client import Outbound
from shared.runtime.http.cors import cross_origin
from shared.runtime.http.health import health_routes
from shared.runtime.http.metrics_server import metrics_server
from shared.runtime.http.request_log import RequestLog
from shared.runtime.http.server import listener, serve
from shared.runtime.settings import Settings
from shared.store.api_keys import ApiKeys
from shared.store.channels import Channels
from shared.store.commands import commands_to
from shared.store.idempotency import Idempotency
from shared.store.queues import QueueLimits, Queues
from shared.store.receipts import Receipts
from shared.store.routing import Routing
from shared.store.sessions import Sessions
from shared.store.wakeups import Wakeups
from shared.store.webhooks import Webhooks
from shared.tokens import Principals
from shared.wire.pelion.subscriptions import compiled
from shared.wire.sessions import stored_wanted


def make_outbound(settings: Settings) -> Outbound:
    """What tries the URLs of webhooks; to be entered before it is used."""
    return Outbound(
        policy=AddressPolicy(settings.allow_private_callbacks),
        timeout_s=settings.callback_timeout_s,
        client_cert=settings.callback_client_cert,
        client_key=settings.callback_client_key,
        ca=settings.callback_ca,
    )


def make_context(settings: Settings, redis: Redis, *, admin_token: str, outbound: Outbound) -> Context:
    calls = commands_to(redis)
    routing = Routing(calls, compiled)
    wakeups = Wakeups(calls)
    api_keys = ApiKeys(calls, routing, wakeups)
    return Context(
        api_keys=api_keys,
        channels=Channels(calls, routing, wakeups),
        wakeups=wakeups,
        once=Once(Idempotency(calls)),
        principals=Principals(api_keys),
        authenticator=Authenticator(api_keys, admin_token=admin_token),
        queues=Queues(
            calls, limits=QueueLimits.of(settings.queue_limit_bytes, settings.notification_lifetime_s)
        ),
        receipts=Receipts(calls),
        replica=settings.replica,
        routing=routing,
        sessions=Sessions(calls, routing, wakeups, stored=stored_wanted),
        endpoint_verifier=EndpointVerifier(outbound),
        webhooks=Webhooks(calls, wakeups),
    )


async def run(settings: Settings, redis: Redis, stop: asyncio.Event) -> None:
    """Serves requests on PORT until `stop`."""
    assert settings.admin_token is not None
    admin_token = settings.admin_token.get_secret_value()
    listening = listener(settings.host, settings.port)
    async with metrics_server(settings.host, settings.metrics_port), make_outbound(settings) as outbound:
        context = make_context(settings, redis, admin_token=admin_token, outbound=outbound)
        health = health_routes(lambda: not stop.is_set(), metrics_port=settings.metrics_port)
        app = gateway_app(context, more=[*health])
        open_app = cross_origin(app, origins=settings.cors_origins)
        counted = RequestLog(open_app, count=telemetry.request_answered)
        await serve(counted, listening, stop=stop, on_shutdown=_nothing)


async def _nothing() -> None:
    """A gateway holds nothing that would want a goodbye."""
