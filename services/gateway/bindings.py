"""The plain topics that an API key wants: /v1/bindings (docs/protocols/events.md, section 4)."""

import orjson
from starlette.requests import Request
from starlette.responses import Response

from services.gateway.bodies import body_of
from services.gateway.context import context_of
from shared.model.api_keys import Scope
from shared.model.bindings import Source
from shared.runtime.http.responses import json_response
from shared.wire.topic_bindings import parse_topics


async def get_bindings(request: Request) -> Response:
    context = context_of(request)
    key = await context.authenticator.require(request, Scope.RECEIVE)
    stored = await context.routing.bindings(key.account_id, key.id, Source.TOPICS)
    return json_response(orjson.loads(stored) if stored else [])


async def put_bindings(request: Request) -> Response:
    """Replaces them all; an empty array removes them."""
    context = context_of(request)
    key = await context.authenticator.require(request, Scope.RECEIVE)
    topics = parse_topics(await body_of(request))
    if topics:
        stored = orjson.dumps(topics)
        await context.routing.put_bindings(key.account_id, key.id, stored, source=Source.TOPICS)
    else:
        await context.routing.drop_bindings(key.account_id, key.id, Source.TOPICS)
    return Response(status_code=204)


async def delete_bindings(request: Request) -> Response:
    context = context_of(request)
    key = await context.authenticator.require(request, Scope.RECEIVE)
    await context.routing.drop_bindings(key.account_id, key.id, Source.TOPICS)
    return Response(status_code=204)
