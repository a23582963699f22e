"""Starts and stops a gateway."""

import asyncio
import contextlib
from functools import partial

from redis.asyncio import Redis

from services.composition import Stores, build_outbound, publishing_of
from services.gateway.app import gateway_app
from services.gateway.authenticator import Authenticator
from services.gateway.context import Context
from services.gateway.endpoint_verification import EndpointVerifier
from services.gateway.fetch_waits import FetchWaits
from services.gateway.hot_publish import hot_routes
from services.serving import Readiness, log_start, serve_app
from shared.model.errors import StoreUnavailable
from shared.outbound.client import Outbound
from shared.runtime.http.health import health_routes, metrics_server
from shared.runtime.http.server import listener
from shared.runtime.settings import Settings
from shared.runtime.stranger_limits import StrangerLimits


def make_context(settings: Settings, redis: Redis, *, admin_token: str, outbound: Outbound) -> Context:
    stores = Stores(settings, redis)
    limits = StrangerLimits(settings)
    authenticator = Authenticator(
        stores.api_keys, stores.native_tokens, admin_token=admin_token, limits=limits
    )
    return Context(
        stores=stores,
        publishing=publishing_of(stores, on_credentials_version=authenticator.on_credentials_version),
        authenticator=authenticator,
        endpoint_verifier=EndpointVerifier(outbound),
        fetch_waits=FetchWaits(stores.fetches.pending, most=settings.most_fetches),
        replica=settings.replica,
    )


async def run(settings: Settings, redis: Redis, stop: asyncio.Event) -> None:
    """Serves requests on PORT until `stop`."""
    assert settings.admin_token is not None
    admin_token = settings.admin_token.get_secret_value()
    listening = listener(settings.host, settings.port)
    async with metrics_server(settings.host, settings.metrics_port), build_outbound(settings) as outbound:
        context = make_context(settings, redis, admin_token=admin_token, outbound=outbound)
        readiness = Readiness(stop)
        health = health_routes(readiness, detail=readiness.detail, metrics_port=settings.metrics_port)
        app = gateway_app(context, more=[*health])
        await serve_app(
            app,
            listening,
            settings,
            stop=stop,
            on_shutdown=context.fetch_waits.end,
            hot_routes=hot_routes(context),
            on_start=partial(log_start, "gateway", settings, listening),
        )
        with contextlib.suppress(StoreUnavailable):
            await context.stores.stored_bytes.report()
