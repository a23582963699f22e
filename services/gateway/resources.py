"""Subscriptions to one device's resources: /v2/subscriptions/{device-id}[/{resourcePath}] (section 3)."""

from starlette.convertors import PathConvertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import Response

from services.gateway.context import context_of
from shared.model.api_keys import Scope
from shared.model.bindings import Source
from shared.model.errors import Invalid
from shared.runtime.http.responses import Problem
from shared.store.routing import Added
from shared.wire.pelion.resources import MAX_RESOURCES, Resource, paths_of, resource_in, uri_list

PREFIX = "/v2/subscriptions/"


class _Rest(PathConvertor):
    """Newlines too: a name that holds one is refused for it, and not for a path that nobody knows."""

    regex = "(?s:.*)"


class _RestOfTwo(PathConvertor):
    """What may name a resource of a device."""

    regex = "(?s:[^/]*/.*)"


register_url_convertor("device", _Rest())
register_url_convertor("resource", _RestOfTwo())


async def get_resource(request: Request) -> Response:
    """Of a device the paths subscribed to, one per line; of one resource only whether it is."""
    context = context_of(request)
    key = await context.authenticator.require(request, Scope.RECEIVE)
    named = _named(request)
    stored = await context.routing.bindings(key.account_id, key.id, Source.RESOURCES)
    paths = paths_of(named.device, stored)
    if named.path:
        # The bodies are empty, as that service's are.
        return Response(status_code=200 if named.path in paths else 404)
    if not paths:
        raise Problem(404, "there are no subscriptions to this device")
    return Response(uri_list(paths), headers={"content-type": "text/uri-list"})


async def put_resource(request: Request) -> Response:
    """Subscribes, whether anybody has heard of the device or not: there is no directory of devices."""
    context = context_of(request)
    key = await context.authenticator.require(request, Scope.RECEIVE)
    named = _named(request)
    if not named.path:
        raise Problem(405, "a subscription names a resource of the device", headers={"allow": "GET, DELETE"})
    added = await context.routing.add_line(
        key.account_id, key.id, named.line, source=Source.RESOURCES, limit=MAX_RESOURCES
    )
    if added is Added.FULL:
        message = f"{MAX_RESOURCES} resources are subscribed to; more need a presubscription"
        raise Invalid(message, field="resourcePath")
    return Response(status_code=200)


async def delete_resource(request: Request) -> Response:
    """Ends one subscription, or all to a device; 204 also when there was none."""
    context = context_of(request)
    key = await context.authenticator.require(request, Scope.RECEIVE)
    line = _named(request).line
    await context.routing.drop_lines(key.account_id, key.id, line, source=Source.RESOURCES)
    return Response(status_code=204)


def _named(request: Request) -> Resource:
    # Not the decoded path: there a slash inside a device's name would look like its end.
    raw: bytes = request.scope["raw_path"]
    rest = raw.decode("ascii").removeprefix(PREFIX)
    if not rest:
        raise Problem(404, "there is no such path")
    return resource_in(rest)
