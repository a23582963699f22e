"""Bindings of an API key: topics (/v1/bindings), presubscriptions and single resources (/v2/subscriptions).

docs/protocols/events.md, section 4; docs/protocols/pelion.md, section 3.
"""

from typing import Any

import msgspec
from starlette.convertors import PathConvertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import Response

from services.gateway.context import context_of
from services.gateway.openapi import TEXT, response
from services.gateway.operations import RECEIVER, Operation
from shared.model.api_keys import ApiKey
from shared.model.bindings import Source
from shared.model.errors import Invalid
from shared.model.quotas import Quota
from shared.runtime.http.responses import Problem
from shared.wire.pelion.resources import MAX_RESOURCES, Resource, paths_of, resource_in, uri_list
from shared.wire.pelion.subscriptions import Presubscriptions, check_presubscriptions
from shared.wire.topic_bindings import Topics, check_topics

_PREFIX = "/v2/subscriptions/"
_LISTED: msgspec.json.Decoder[list[msgspec.Raw]] = msgspec.json.Decoder(list[msgspec.Raw])


class _RestOfTwo(PathConvertor):
    """A device and something after the slash."""

    regex = "[^/]*/.*"


register_url_convertor("resource", _RestOfTwo())
_ONE_DEVICE = f"{_PREFIX}{{rest:path}}"
_ONE_RESOURCE = f"{_PREFIX}{{rest:resource}}"


@Operation("GET /v1/bindings", RECEIVER, successes={200: Topics})
async def get_bindings(request: Request, key: ApiKey) -> Response:
    """Gets the API key's topic bindings as they were put; [] without any."""
    return await _get(request, key, Source.TOPICS)


@Operation("PUT /v1/bindings", RECEIVER, errors=(429,))
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


@Operation("PUT /v2/subscriptions", RECEIVER, errors=(429,))
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
    stores = context_of(request).stores
    routing = stores.routing
    if bindings:
        stored = await routing.bindings(key.account_id, key.id, source)
        before = 0 if stored is None else len(_LISTED.decode(stored))
        if len(bindings) > before:
            await stores.quotas.check(key.account_id, Quota.BINDINGS, more=len(bindings) - before)
        await routing.put_bindings(key.account_id, key.id, msgspec.json.encode(bindings), source=source)
    else:
        await routing.drop_bindings(key.account_id, key.id, source)


@Operation(
    "GET /v2/subscriptions/{device-id}",
    RECEIVER,
    successes={200: response("One path per line.", {**TEXT, "minLength": 1}, media_type="text/uri-list")},
    errors=(404,),
    pattern=_ONE_DEVICE,
)
@Operation(
    "GET /v2/subscriptions/{device-id}/{resourcePath}",
    RECEIVER,
    name="getSubscription",
    summary="Checks the subscription to a resource",
    successes={200: None, 404: response("There is none.")},
    pattern=_ONE_RESOURCE,
)
async def get_device_subscriptions(request: Request, key: ApiKey) -> Response:
    """Lists the subscribed resources of a device."""
    resource = _resource_of(request)
    stored = await context_of(request).stores.routing.bindings(key.account_id, key.id, Source.RESOURCES)
    paths = paths_of(resource.device, stored)
    if resource.path:
        # The check of one resource has no body.
        return Response(status_code=200 if resource.path in paths else 404)
    if not paths:
        raise Problem(404, "no subscriptions to this device")
    return Response(uri_list(paths), headers={"content-type": "text/uri-list"})


@Operation(
    "PUT /v2/subscriptions/{device-id}/{resourcePath}",
    RECEIVER,
    successes={200: None},
    errors=(429,),
    pattern=_ONE_RESOURCE,
)
async def put_subscription(request: Request, key: ApiKey) -> Response:
    """Subscribes to a resource. The device need not be known."""
    resource = _resource_of(request)
    if not resource.path:
        raise Problem(
            405,
            "a subscription must name a resource: /v2/subscriptions/{device-id}/{resourcePath}",
            headers={"allow": "GET, DELETE"},
        )
    stores = context_of(request).stores
    await stores.quotas.check(key.account_id, Quota.BINDINGS)
    is_bound = await stores.routing.add_line(
        key.account_id, key.id, resource.line, source=Source.RESOURCES, limit=MAX_RESOURCES
    )
    if not is_bound:
        message = f"the limit of {MAX_RESOURCES} resources is reached; use presubscriptions for more"
        raise Invalid(message, field="resourcePath")
    return Response(status_code=200)


@Operation("DELETE /v2/subscriptions/{device-id}", RECEIVER, pattern=_ONE_DEVICE)
@Operation(
    "DELETE /v2/subscriptions/{device-id}/{resourcePath}",
    RECEIVER,
    name="deleteSubscription",
    summary="Deletes the subscription to a resource",
    pattern=_ONE_RESOURCE,
)
async def delete_device_subscriptions(request: Request, key: ApiKey) -> None:
    """Deletes all subscriptions to a device's resources; 204 also when there was none."""
    line = _resource_of(request).line
    await context_of(request).stores.routing.drop_lines(key.account_id, key.id, line, source=Source.RESOURCES)


def _resource_of(request: Request) -> Resource:
    # Still percent-encoded: else a slash inside a device's name would end the name.
    rest: str = request.path_params["rest"]
    if not rest:
        raise Problem(404, "there is no such path")
    return resource_in(rest)
