"""Subscriptions to one device's resources: /v2/subscriptions/{device-id}[/{resourcePath}] (section 3)."""

from starlette.convertors import PathConvertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import Response

from services.gateway.context import context_of
from services.gateway.openapi import TEXT, response
from services.gateway.operations import RECEIVER, Operation
from shared.model.api_keys import ApiKey
from shared.model.bindings import Source
from shared.model.errors import Invalid
from shared.runtime.http.responses import Problem
from shared.store.routing import Added
from shared.wire.pelion.resources import MAX_RESOURCES, Resource, paths_of, resource_in, uri_list

PREFIX = "/v2/subscriptions/"


class _Rest(PathConvertor):
    """Matches newlines too: a device name with a newline gets a 400 that says so, not a 404."""

    regex = "(?s:.*)"


class _RestOfTwo(PathConvertor):
    """A device and something after the slash."""

    regex = "(?s:[^/]*/.*)"


register_url_convertor("device", _Rest())
register_url_convertor("resource", _RestOfTwo())
_ONE_DEVICE = f"{PREFIX}{{rest:device}}"
_ONE_RESOURCE = f"{PREFIX}{{rest:resource}}"


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
    """Lists the subscribed resources of a device. For one resource: 200 or 404 without a body."""
    resource = _resource_of(request)
    stored = await context_of(request).stores.routing.bindings(key.account_id, key.id, Source.RESOURCES)
    paths = paths_of(resource.device, stored)
    if resource.path:
        return Response(status_code=200 if resource.path in paths else 404)
    if not paths:
        raise Problem(404, "no subscriptions to this device")
    return Response(uri_list(paths), headers={"content-type": "text/uri-list"})


@Operation(
    "PUT /v2/subscriptions/{device-id}/{resourcePath}",
    RECEIVER,
    successes={200: None},
    pattern=_ONE_RESOURCE,
)
async def put_subscription(request: Request, key: ApiKey) -> Response:
    """Subscribes to a resource. The gateway keeps no directory of devices: any name will do."""
    resource = _resource_of(request)
    if not resource.path:
        raise Problem(
            405,
            "a subscription must name a resource: /v2/subscriptions/{device-id}/{resourcePath}",
            headers={"allow": "GET, DELETE"},
        )
    added = await context_of(request).stores.routing.add_line(
        key.account_id, key.id, resource.line, source=Source.RESOURCES, limit=MAX_RESOURCES
    )
    if added is Added.FULL:
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
    # Use the raw path: in the decoded one, a slash inside a device's name would end the name.
    raw: bytes = request.scope["raw_path"]
    rest = raw.decode("ascii").removeprefix(PREFIX)
    if not rest:
        raise Problem(404, "there is no such path")
    return resource_in(rest)
