"""/v1: accounts, API keys, publishing, bindings, our own view of channels."""

from functools import partial
from typing import Annotated

from msgspec import Meta

from services.gateway.openapi.parts import (
    TEXT,
    Json,
    in_header,
    in_query,
    operation,
    paths,
    request_body,
    response,
    schema,
)
from shared.wire import accounts
from shared.wire.channels import ChannelBody, DeliveriesBody, SigningSecretBody
from shared.wire.events import MAX_EVENTS, NewEvent, PublishedBody
from shared.wire.models import Id
from shared.wire.receipts import ReceiptBody
from shared.wire.topic_bindings import Topics

_LINES: Json = {"type": "string", "description": "One event a line, as JSON."}
_EVENTS = request_body(
    NewEvent | Annotated[list[NewEvent], Meta(min_length=1, max_length=MAX_EVENTS)],
    others={"application/x-ndjson": _LINES, "application/ndjson": _LINES},
)
_IDEMPOTENCY_KEY = in_header(
    "Idempotency-Key",
    "Repetitions under the same key get the first response; the events are published once.",
    {**TEXT, "minLength": 1, "maxLength": 255, "pattern": "^[!#-~][ -~]*$"},
)
_by_admins = partial(operation, errors=(404,), by="adminToken apiKey")

_ACCOUNTS = {
    "POST /v1/accounts": operation(
        "createAccount",
        "Create an account",
        {201: accounts.AccountBody},
        takes=accounts.NewAccount,
        by="adminToken",
    ),
    "GET /v1/accounts/{account_id}/api-keys": _by_admins(
        "listApiKeys",
        "List an account's API keys by their ids, at most 1,000",
        {200: accounts.ApiKeysBody},
        in_query("after", "List from after this id.", schema(Id)),
    ),
    "POST /v1/accounts/{account_id}/api-keys": _by_admins(
        "createApiKey",
        "Create an API key. The secret is returned once, here",
        {201: accounts.ApiKeyWithSecretBody},
        takes=accounts.NewApiKey,
    ),
    "GET /v1/api-keys/{api_key_id}": _by_admins("getApiKey", "Get an API key", {200: accounts.ApiKeyBody}),
    "DELETE /v1/api-keys/{api_key_id}": _by_admins(
        "deleteApiKey", "Revoke an API key: deletes its channel and bindings, closes its socket", {204: None}
    ),
    "POST /v1/api-keys/{api_key_id}/secrets": _by_admins(
        "rotateApiKey",
        "Create a second secret; the current one stays valid for a while",
        {201: accounts.ApiKeyWithSecretBody},
        takes=request_body(accounts.NewSecret, required=False),
        errors=(404, 409),
    ),
}
_PUBLISHING = {
    "POST /v1/events": operation(
        "publish",
        "Publish events. The response is sent when Redis holds every notification",
        {202: response("Accepted.", PublishedBody, Idempotent_Replayed={"const": "true"})},
        _IDEMPOTENCY_KEY,
        in_header("traceparent", "W3C trace context."),
        errors=(409, 422),
        takes=_EVENTS,
    ),
    "GET /v1/events/{event_id}": operation(
        "getReceipt", "Get the receipt of an event that asked for one", {200: ReceiptBody}, errors=(404,)
    ),
    "GET /v1/bindings": operation("getBindings", "Get the API key's topic bindings", {200: Topics}),
    "PUT /v1/bindings": operation(
        "putBindings", "Replace the topic bindings, in force from the next publish", {204: None}, takes=Topics
    ),
    "DELETE /v1/bindings": operation("deleteBindings", "Delete the topic bindings", {204: None}),
}
_CHANNELS = {
    "GET /v1/channels/{api_key_id}": _by_admins(
        "getChannelState", "Get the state of the API key's channel, of any kind", {200: ChannelBody}
    ),
    "GET /v1/channels/{api_key_id}/signing-secret": _by_admins(
        "getSigningSecret",
        "Get the secret that signs requests to its webhook",
        {200: response("As in Standard Webhooks.", SigningSecretBody, Cache_Control={"const": "no-store"})},
    ),
    "GET /v1/channels/{api_key_id}/deliveries": _by_admins(
        "getDeliveries",
        "List the last attempts to deliver to its webhook, newest first",
        {200: DeliveriesBody},
    ),
    "POST /v1/channels/{api_key_id}/deliveries/retry": _by_admins(
        "retryDeliveries", "Retry a failing webhook now", {202: None}
    ),
}

PATHS: Json = {
    **paths("accounts", _ACCOUNTS),
    **paths("events", _PUBLISHING),
    **paths("channels", _CHANNELS),
}
