"""The OpenAPI document of all that is under HTTP, the edge's part too: GET /openapi.json."""

import orjson
from starlette.requests import Request
from starlette.responses import Response

from services.gateway.openapi import cognism, crossbar, pelion, publishing
from services.gateway.openapi.parts import Json, answer, operation, tagged
from services.gateway.openapi.schemas import SCHEMAS

VERSION = "0.1.0"
_TEXT: Json = {"type": "string"}

_OPERATIONS: Json = {
    "/livez": {"get": operation("live", "It runs", {200: answer("ok", _TEXT, of="text/plain")}, by="")},
    "/readyz": {
        "get": operation(
            "ready",
            "It takes requests",
            {
                200: answer("ready", _TEXT, of="text/plain"),
                503: answer("It is going away.", _TEXT, of="text/plain", headers={"Retry-After": _TEXT}),
            },
            by="",
        )
    },
    "/metrics": {
        "get": operation(
            "metrics", "In Prometheus' form", {200: answer("Metrics.", _TEXT, of="text/plain")}, by=""
        )
    },
    "/openapi.json": {
        "get": operation(
            "document", "This document", {200: answer("OpenAPI 3.1.", {"type": "object"})}, by=""
        )
    },
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
        **tagged("operations", _OPERATIONS),
    },
    "webhooks": pelion.WEBHOOKS,
    "components": {
        "schemas": SCHEMAS,
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
