"""/v1: accounts, API keys, publishing, plain topics, our own view of channels."""

from services.gateway.openapi.parts import (
    Json,
    answer,
    array,
    body,
    in_header,
    in_path,
    in_query,
    operation,
    ref,
    tagged,
)
from services.gateway.openapi.schemas import ID

_ADMIN = "adminToken"
_ADMINS = "adminToken apiKey"
_ACCOUNT = in_path("account_id", "The account's id.", {"type": "string"})
_API_KEY = in_path("api_key_id", "The API key's id.", {"type": "string"})

_ACCOUNTS: Json = {
    "/v1/accounts": {
        "post": operation(
            "createAccount",
            "Makes an account",
            {201: answer("The account.", ref("Account"))},
            takes=body(ref("NewAccount")),
            by=_ADMIN,
        ),
    },
    "/v1/accounts/{account_id}/api-keys": {
        "get": operation(
            "listApiKeys",
            "The API keys of an account, in the order of their ids",
            {200: answer("At most 1,000 of them.", ref("ApiKeys"))},
            errors=(404,),
            parameters=(_ACCOUNT, in_query("after", "The id to go on behind.", {**ID, "type": "string"})),
            by=_ADMINS,
        ),
        "post": operation(
            "createApiKey",
            "Makes an API key; the only time its secret is told",
            {201: answer("The API key.", ref("ApiKeyWithSecret"))},
            errors=(404,),
            takes=body(ref("NewApiKey")),
            parameters=(_ACCOUNT,),
            by=_ADMINS,
        ),
    },
    "/v1/api-keys/{api_key_id}": {
        "get": operation(
            "getApiKey",
            "One API key",
            {200: answer("The API key.", ref("ApiKey"))},
            errors=(404,),
            parameters=(_API_KEY,),
            by=_ADMINS,
        ),
        "delete": operation(
            "deleteApiKey",
            "Revokes an API key: its channel and subscriptions go, its socket closes",
            {204: answer("It is revoked.")},
            errors=(404,),
            parameters=(_API_KEY,),
            by=_ADMINS,
        ),
    },
    "/v1/api-keys/{api_key_id}/secrets": {
        "post": operation(
            "rotateApiKey",
            "Makes a second secret; the one before it stays valid for a while",
            {201: answer("The API key with its new secret.", ref("ApiKeyWithSecret"))},
            errors=(404, 409),
            takes=body(ref("NewSecret"), required=False),
            parameters=(_API_KEY,),
            by=_ADMINS,
        ),
    },
}

_LINES: Json = {"type": "string", "description": "One event a line, as JSON."}
_EVENTS: Json = {
    "/v1/events": {
        "post": operation(
            "publish",
            "Publishes events; answered when Redis holds every copy",
            {
                202: answer(
                    "For each event the number of queues it went into.",
                    ref("Published"),
                    headers={"Idempotent-Replayed": {"const": "true"}},
                )
            },
            errors=(409, 422),
            takes=body(
                {"anyOf": [ref("Event"), array(ref("Event"), minItems=1, maxItems=10_000)]},
                others={"application/x-ndjson": _LINES, "application/ndjson": _LINES},
            ),
            parameters=(
                in_header(
                    "Idempotency-Key",
                    "The same request comes again under the same key, and is queued once.",
                    {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!#-~][ -~]*$"},
                ),
                in_header("traceparent", "W3C trace context.", {"type": "string"}),
            ),
        ),
    },
    "/v1/events/{event_id}": {
        "get": operation(
            "getReceipt",
            "What became of an event that was published with a receipt",
            {200: answer("As far as it got, in each channel.", ref("Receipt"))},
            errors=(404,),
            parameters=(in_path("event_id", "The event's id, percent-encoded.", {"type": "string"}),),
        ),
    },
    "/v1/bindings": {
        "get": operation(
            "getBindings", "The plain topics the API key wants", {200: answer("As put.", ref("Topics"))}
        ),
        "put": operation(
            "putBindings",
            "Replaces the plain topics the API key wants",
            {204: answer("The next publish honours them.")},
            takes=body(ref("Topics")),
        ),
        "delete": operation("deleteBindings", "Removes them all", {204: answer("There are none.")}),
    },
}

_CHANNELS: Json = {
    "/v1/channels/{api_key_id}": {
        "get": operation(
            "getChannelState",
            "The API key's channel as it is now, whatever its kind",
            {200: answer("Its state.", ref("Channel"))},
            errors=(404,),
            parameters=(_API_KEY,),
            by=_ADMINS,
        ),
    },
    "/v1/channels/{api_key_id}/signing-secret": {
        "get": operation(
            "getSigningSecret",
            "The secret that signs what its webhook is sent",
            {
                200: answer(
                    "As Standard Webhooks writes it.",
                    ref("SigningSecret"),
                    headers={"Cache-Control": {"const": "no-store"}},
                )
            },
            errors=(404,),
            parameters=(_API_KEY,),
            by=_ADMINS,
        ),
    },
    "/v1/channels/{api_key_id}/deliveries": {
        "get": operation(
            "getDeliveries",
            "The last attempts to deliver to its webhook, newest first",
            {200: answer("At most 100 of them.", ref("Deliveries"))},
            errors=(404,),
            parameters=(_API_KEY,),
            by=_ADMINS,
        ),
    },
    "/v1/channels/{api_key_id}/deliveries/retry": {
        "post": operation(
            "retryDeliveries",
            "Lets a webhook that failed be tried now",
            {202: answer("A dispatcher is told.")},
            errors=(404,),
            parameters=(_API_KEY,),
            by=_ADMINS,
        ),
    },
}

PATHS: Json = {
    **tagged("accounts", _ACCOUNTS),
    **tagged("events", _EVENTS),
    **tagged("channels", _CHANNELS),
}
