"""An API key's presubscriptions: /v2/subscriptions (docs/protocols/pelion.md, section 3)."""

import orjson
from starlette.requests import Request
from starlette.responses import Response

from services.gateway.bodies import body_of
from services.gateway.context import context_of
from shared.model.api_keys import Scope
from shared.runtime.http.responses import json_response
from shared.wire.pelion.subscriptions import parse_presubscriptions


async def get_subscriptions(request: Request) -> Response:
    context = context_of(request)
    key = await context.authenticator.require(request, Scope.RECEIVE)
    stored = await context.routing.bindings(key.account_id, key.id)
    return json_response(orjson.loads(stored) if stored else [])


async def put_subscriptions(request: Request) -> Response:
    """Replaces them all; an empty array removes them."""
    context = context_of(request)
    key = await context.authenticator.require(request, Scope.RECEIVE)
    wanted = parse_presubscriptions(await body_of(request))
    if wanted:
        await context.routing.put_bindings(key.account_id, key.id, orjson.dumps(wanted))
    else:
        await context.routing.drop_bindings(key.account_id, key.id)
    return Response(status_code=204)


async def delete_subscriptions(request: Request) -> Response:
    context = context_of(request)
    key = await context.authenticator.require(request, Scope.RECEIVE)
    await context.routing.drop_bindings(key.account_id, key.id)
    return Response(status_code=204)
