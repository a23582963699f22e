"""/v1: accounts, API keys, publishing, bindings, our own view of channels."""

from typing import Annotated

from msgspec import Meta

from services.gateway.openapi.parts import (
    Json,
    in_header,
    in_query,
    operation,
    paths,
    request_body,
    response,
)
from shared.wire.accounts import (
    AccountBody,
    ApiKeyBody,
    ApiKeysBody,
    ApiKeyWithSecretBody,
    NewAccount,
    NewApiKey,
    NewSecret,
)
from shared.wire.channels import ChannelBody, DeliveriesBody, SigningSecretBody
from shared.wire.events import MAX_EVENTS, NewEvent, PublishedBody
from shared.wire.receipts import ReceiptBody
from shared.wire.topic_bindings import Topics

_ADMINS = "adminToken apiKey"
_LINES: Json = {"type": "string", "description": "One event a line, as JSON."}
_EVENTS = NewEvent | Annotated[list[NewEvent], Meta(min_length=1, max_length=MAX_EVENTS)]
_IDEMPOTENCY_KEY = in_header(
    "Idempotency-Key",
    "Repetitions under the same key get the first response; the events are published once.",
    {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!#-~][ -~]*$"},
)

_ACCOUNTS = {
    "POST /v1/accounts": operation(
        "createAccount",
        "Create an account",
        {201: response("The account.", AccountBody)},
        takes=request_body(NewAccount),
        by="adminToken",
    ),
    "GET /v1/accounts/{account_id}/api-keys": operation(
        "listApiKeys",
        "List an account's API keys, in the order of their ids",
        {200: response("At most 1,000 of them.", ApiKeysBody)},
        errors=(404,),
        parameters=(
            in_query("after", "List from after this id.", {"type": "string", "pattern": "^[0-9a-f]{32}$"}),
        ),
        by=_ADMINS,
    ),
    "POST /v1/accounts/{account_id}/api-keys": operation(
        "createApiKey",
        "Create an API key. The secret is returned once, here",
        {201: response("The API key.", ApiKeyWithSecretBody)},
        errors=(404,),
        takes=request_body(NewApiKey),
        by=_ADMINS,
    ),
    "GET /v1/api-keys/{api_key_id}": operation(
        "getApiKey",
        "Get an API key",
        {200: response("The API key.", ApiKeyBody)},
        errors=(404,),
        by=_ADMINS,
    ),
    "DELETE /v1/api-keys/{api_key_id}": operation(
        "deleteApiKey",
        "Revoke an API key: deletes its channel and subscriptions, closes its socket",
        {204: response("It is revoked.")},
        errors=(404,),
        by=_ADMINS,
    ),
    "POST /v1/api-keys/{api_key_id}/secrets": operation(
        "rotateApiKey",
        "Create a second secret; the current one stays valid for a while",
        {201: response("The API key with its new secret.", ApiKeyWithSecretBody)},
        errors=(404, 409),
        takes=request_body(NewSecret, required=False),
        by=_ADMINS,
    ),
}
_PUBLISHING = {
    "POST /v1/events": operation(
        "publish",
        "Publish events. The response comes when Redis holds every notification",
        {
            202: response(
                "For each event the number of channels and sessions it went to.",
                PublishedBody,
                headers={"Idempotent-Replayed": {"const": "true"}},
            )
        },
        errors=(409, 422),
        takes=request_body(_EVENTS, others={"application/x-ndjson": _LINES, "application/ndjson": _LINES}),
        parameters=(_IDEMPOTENCY_KEY, in_header("traceparent", "W3C trace context.")),
    ),
    "GET /v1/events/{event_id}": operation(
        "getReceipt",
        "Get what became of an event that was published with a receipt",
        {200: response("How far it got in each channel.", ReceiptBody)},
        errors=(404,),
    ),
    "GET /v1/bindings": operation(
        "getBindings", "Get the API key's topic bindings", {200: response("As they were put.", Topics)}
    ),
    "PUT /v1/bindings": operation(
        "putBindings",
        "Replace the API key's topic bindings",
        {204: response("In force from the next publish.")},
        takes=request_body(Topics),
    ),
    "DELETE /v1/bindings": operation(
        "deleteBindings", "Delete the API key's topic bindings", {204: response("There are none.")}
    ),
}
_CHANNELS = {
    "GET /v1/channels/{api_key_id}": operation(
        "getChannelState",
        "Get the state of the API key's channel, of any kind",
        {200: response("Its state.", ChannelBody)},
        errors=(404,),
        by=_ADMINS,
    ),
    "GET /v1/channels/{api_key_id}/signing-secret": operation(
        "getSigningSecret",
        "Get the secret that signs requests to its webhook",
        {
            200: response(
                "In the form of Standard Webhooks.",
                SigningSecretBody,
                headers={"Cache-Control": {"const": "no-store"}},
            )
        },
        errors=(404,),
        by=_ADMINS,
    ),
    "GET /v1/channels/{api_key_id}/deliveries": operation(
        "getDeliveries",
        "List the last attempts to deliver to its webhook, newest first",
        {200: response("At most 100 of them.", DeliveriesBody)},
        errors=(404,),
        by=_ADMINS,
    ),
    "POST /v1/channels/{api_key_id}/deliveries/retry": operation(
        "retryDeliveries",
        "Retry a failing webhook now",
        {202: response("A dispatcher will retry.")},
        errors=(404,),
        by=_ADMINS,
    ),
}

PATHS: Json = {
    **paths("accounts", _ACCOUNTS),
    **paths("events", _PUBLISHING),
    **paths("channels", _CHANNELS),
}
