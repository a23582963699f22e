"""Bindings of an API key as a whole: topics (/v1/bindings) and presubscriptions (/v2/subscriptions)."""

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from services.gateway.context import context_of
from services.gateway.operations import RECEIVER, Operation
from shared.model.api_keys import ApiKey
from shared.model.bindings import Source
from shared.wire.pelion.subscriptions import Presubscriptions, check_presubscriptions
from shared.wire.topic_bindings import Topics, check_topics


@Operation("GET /v1/bindings", RECEIVER, successes={200: Topics})
async def get_bindings(request: Request, key: ApiKey) -> Response:
    """Gets the API key's topic bindings as they were put; [] without any."""
    return await _get(request, key, Source.TOPICS)


@Operation("PUT /v1/bindings", RECEIVER)
async def put_bindings(request: Request, key: ApiKey, posted: Topics) -> None:
    """Replaces the topic bindings, in force from the next publish; [] removes them."""
    check_topics(posted)
    await _put(request, key, Source.TOPICS, posted)


@Operation("DELETE /v1/bindings", RECEIVER)
async def delete_bindings(request: Request, key: ApiKey) -> None:
    """Deletes the topic bindings."""
    await _put(request, key, Source.TOPICS, [])


@Operation("GET /v2/subscriptions", RECEIVER, successes={200: Presubscriptions})
async def get_subscriptions(request: Request, key: ApiKey) -> Response:
    """Gets the presubscriptions as they were put; [] without any."""
    return await _get(request, key, Source.PRESUBSCRIPTIONS)


@Operation("PUT /v2/subscriptions", RECEIVER)
async def put_subscriptions(request: Request, key: ApiKey, posted: Presubscriptions) -> None:
    """Replaces the presubscriptions, in force from the next publish; [] removes them."""
    check_presubscriptions(posted)
    await _put(request, key, Source.PRESUBSCRIPTIONS, posted)


@Operation("DELETE /v2/subscriptions", RECEIVER)
async def delete_subscriptions(request: Request, key: ApiKey) -> None:
    """Deletes the presubscriptions."""
    await _put(request, key, Source.PRESUBSCRIPTIONS, [])


async def _get(request: Request, key: ApiKey, source: Source) -> Response:
    stored = await context_of(request).stores.routing.bindings(key.account_id, key.id, source)
    return Response(stored or b"[]", media_type="application/json")


async def _put(request: Request, key: ApiKey, source: Source, bindings: list[Any]) -> None:
    routing = context_of(request).stores.routing
    if bindings:
        await routing.put_bindings(key.account_id, key.id, msgspec.json.encode(bindings), source=source)
    else:
        await routing.drop_bindings(key.account_id, key.id, source)
