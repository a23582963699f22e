"""Bindings of an API key as a whole: topics (/v1/bindings) and presubscriptions (/v2/subscriptions)."""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from services.gateway.bodies import body_of
from services.gateway.context import context_of
from shared.model.api_keys import Scope
from shared.model.bindings import Source
from shared.wire.pelion.subscriptions import parse_presubscriptions
from shared.wire.topic_bindings import parse_topics

_Handler = Callable[[Request], Awaitable[Response]]
_PARSERS: dict[Source, Callable[[bytes], list[Any]]] = {
    Source.TOPICS: parse_topics,
    Source.PRESUBSCRIPTIONS: parse_presubscriptions,
}


def get_handler(source: Source) -> _Handler:
    """Shows the bindings as they were put; an empty array without any."""

    async def handler(request: Request) -> Response:
        context = context_of(request)
        key = await context.authenticator.require(request, Scope.RECEIVE)
        stored = await context.stores.routing.bindings(key.account_id, key.id, source)
        return Response(stored or b"[]", media_type="application/json")

    return handler


def put_handler(source: Source) -> _Handler:
    """Replaces the bindings; an empty array removes them."""
    parse = _PARSERS[source]

    async def handler(request: Request) -> Response:
        context = context_of(request)
        key = await context.authenticator.require(request, Scope.RECEIVE)
        bindings = parse(await body_of(request))
        if bindings:
            stored = msgspec.json.encode(bindings)
            await context.stores.routing.put_bindings(key.account_id, key.id, stored, source=source)
        else:
            await context.stores.routing.drop_bindings(key.account_id, key.id, source)
        return Response(status_code=204)

    return handler


def delete_handler(source: Source) -> _Handler:
    """Removes the bindings."""

    async def handler(request: Request) -> Response:
        context = context_of(request)
        key = await context.authenticator.require(request, Scope.RECEIVE)
        await context.stores.routing.drop_bindings(key.account_id, key.id, source)
        return Response(status_code=204)

    return handler
