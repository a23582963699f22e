"""The OpenAPI document of all HTTP paths, those of the edge too: GET /openapi.json."""

import orjson
from starlette.requests import Request
from starlette.responses import Response

from services.gateway.openapi import cognism, crossbar, pelion, publishing
from services.gateway.openapi.parts import COMPONENTS, TEXT, Json, operation, paths, response, text_response

VERSION = "0.1.0"


_OPERATIONS = {
    "GET /livez": operation("live", "Check that it runs", {200: text_response("ok")}, by=""),
    "GET /readyz": operation(
        "ready",
        "Check that it accepts requests",
        {
            200: text_response("ready"),
            503: response("It is shutting down.", TEXT, media_type="text/plain", Retry_After=TEXT),
        },
        by="",
    ),
    "GET /metrics": operation("metrics", "Get the metrics", {200: text_response("For Prometheus.")}, by=""),
    "GET /openapi.json": operation("document", "Get this document", {200: {"type": "object"}}, by=""),
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
