"""Starts and stops a gateway."""

import asyncio

from redis.asyncio import Redis

from services.gateway.app import gateway_app
from services.gateway.context import Context
from services.gateway.idempotency import Once
from services.gateway.proof import Proof
from services.gateway.trials import Trials
from shared import telemetry
from shared.model.addresses import AddressPolicy
from shared.outbound import Outbound
from shared.runtime.cross_origin import cross_origin
from shared.runtime.health import health_routes
from shared.runtime.metrics_port import metrics_apart
from shared.runtime.requests import Requests
from shared.runtime.serving import listener, serve
from shared.runtime.settings import Settings
from shared.store.api_keys import ApiKeys
from shared.store.channels import Channels
from shared.store.cluster_calls import calls_to
from shared.store.idempotency import Idempotency
from shared.store.nudges import Nudges
from shared.store.queues import QueueLimits, Queues
from shared.store.receipts import Receipts
from shared.store.routes import Routing
from shared.store.sessions import Sessions
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
    calls = calls_to(redis)
    routing = Routing(calls, compiled)
    nudges = Nudges(calls)
    api_keys = ApiKeys(calls, routing, nudges)
    return Context(
        api_keys=api_keys,
        channels=Channels(calls, routing, nudges),
        nudges=nudges,
        once=Once(Idempotency(calls)),
        principals=Principals(api_keys),
        proof=Proof(api_keys, admin_token=admin_token),
        queues=Queues(
            calls, limits=QueueLimits.of(settings.queue_limit_bytes, settings.notification_lifetime_s)
        ),
        receipts=Receipts(calls),
        replica=settings.replica,
        routing=routing,
        sessions=Sessions(calls, routing, nudges, stored=stored_wanted),
        trials=Trials(outbound),
        webhooks=Webhooks(calls, nudges),
    )


async def run(settings: Settings, redis: Redis, stop: asyncio.Event) -> None:
    """Serves requests on PORT until `stop`."""
    assert settings.admin_token is not None
    admin_token = settings.admin_token.get_secret_value()
    listening = listener(settings.host, settings.port)
    async with metrics_apart(settings.host, settings.metrics_port), make_outbound(settings) as outbound:
        context = make_context(settings, redis, admin_token=admin_token, outbound=outbound)
        health = health_routes(lambda: not stop.is_set(), metrics_port=settings.metrics_port)
        app = gateway_app(context, more=[*health])
        open_app = cross_origin(app, origins=settings.cors_origins)
        counted = Requests(open_app, count=telemetry.request_answered)
        await serve(counted, listening, stop=stop, goodbye=_nothing)


async def _nothing() -> None:
    """A gateway holds nothing that would want a goodbye."""
