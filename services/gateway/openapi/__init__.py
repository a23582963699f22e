"""The OpenAPI document of all HTTP paths, those of the edge too: GET /openapi.json."""

import orjson
from starlette.requests import Request
from starlette.responses import Response

from services.gateway.openapi import cognism, crossbar, pelion, publishing
from services.gateway.openapi.parts import COMPONENTS, TEXT, Json, operation, paths, response

VERSION = "0.1.0"


def _probe(name: str, summary: str, responses: dict[int, Json]) -> Json:
    return operation(name, summary, responses, by="")


_OPERATIONS = {
    "GET /livez": _probe("live", "Check that it runs", {200: response("ok", TEXT, media_type="text/plain")}),
    "GET /readyz": _probe(
        "ready",
        "Check that it accepts requests",
        {
            200: response("ready", TEXT, media_type="text/plain"),
            503: response(
                "It is shutting down.", TEXT, media_type="text/plain", headers={"Retry-After": TEXT}
            ),
        },
    ),
    "GET /metrics": _probe(
        "metrics", "Get the metrics", {200: response("For Prometheus.", TEXT, media_type="text/plain")}
    ),
    "GET /openapi.json": _probe(
        "document", "Get this document", {200: response("OpenAPI 3.1.", {"type": "object"})}
    ),
}

DOCUMENT: Json = {
    "openapi": "3.1.0",
    "info": {
        "title": "Notification gateway",
        "version": VERSION,
        "description": "Publishing by /v1; receiving by the notification API of the Pelion service, /v2.",
    },
    "servers": [{"url": "/"}],
    "paths": {
        **publishing.PATHS,
        **pelion.PATHS,
        **cognism.PATHS,
        **crossbar.PATHS,
        **paths("operations", _OPERATIONS),
    },
    "webhooks": pelion.WEBHOOKS,
    "components": {
        "schemas": COMPONENTS,
        "securitySchemes": {
            "apiKey": {"type": "http", "scheme": "bearer", "description": "The secret of an API key."},
            "authToken": {"type": "apiKey", "in": "header", "name": "X-Auth-Token"},
            "authTokenInQuery": {"type": "apiKey", "in": "query", "name": "auth_token"},
            "adminToken": {"type": "http", "scheme": "bearer", "description": "The operator's token."},
        },
    },
}

_BODY = orjson.dumps(DOCUMENT)


async def get_document(_: Request) -> Response:
    return Response(_BODY, media_type="application/json", headers={"cache-control": "no-cache"})
