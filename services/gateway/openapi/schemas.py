"""The models that several operations share, and what a NotificationMessage is."""

from services.gateway.openapi.parts import Json, array, closed, nullable, ref

ID: Json = {"type": "string", "pattern": "^[0-9a-f]{32}$"}
MOMENT: Json = {"type": "string", "format": "date-time"}
NAME: Json = {"type": "string", "minLength": 1, "maxLength": 255}
COUNT: Json = {"type": "integer", "minimum": 0}
_SCOPES: Json = array({"type": "string", "enum": ["publish", "receive", "admin"]}, minItems=1)

_API_KEY: Json = {
    "id": ID,
    "account_id": ID,
    "name": NAME,
    "scopes": _SCOPES,
    "created_at": MOMENT,
    "expires_at": nullable(MOMENT),
    "old_secret_valid_until": nullable(MOMENT),
}
_SECRET: Json = {"type": "string", "pattern": "^ak_[0-9a-f]{80}$"}

_FLAG: Json = {"type": "boolean"}
_MASTER: Json = {"const": True, "description": "Its sockets may ask for the events of all accounts."}
_FLAGS = ("deregistrations_as_object", "include_uid", "include_timestamp", "include_original_ep")
# Documented examples of that service send strings where these are meant.
_FLAG_AS_PUT: Json = {"anyOf": [_FLAG, {"type": "string", "pattern": "^([Tt]rue|[Ff]alse)$"}]}
_CHUNK: Json = {"type": "integer", "minimum": 100, "maximum": 10_000}
_CHUNK_AS_PUT: Json = {"anyOf": [_CHUNK, {"type": "string", "pattern": "^([1-9][0-9]{2,3}|10000)$"}]}

_TEXT: Json = {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[^\\x00-\\x1f\\x7f]+$"}
_DEVICE_PATTERN: Json = {
    "type": "string",
    "minLength": 1,
    "maxLength": 64,
    "pattern": "^[^*]*\\*?$",
    "description": "A * at the end stands for any rest.",
}

_DEVICE: Json = {
    "type": "object",
    "properties": {"ep": {"type": "string"}, "original-ep": {"type": "string"}, "ept": {"type": "string"}},
    "required": ["ep"],
}
_GONE: Json = {"anyOf": [{"type": "string"}, _DEVICE]}

SCHEMAS: Json = {
    "Error": closed(
        {
            "object": {"const": "error"},
            "code": {"type": "integer", "minimum": 400, "maximum": 599},
            "type": {"type": "string", "examples": ["validation_error", "invalid_auth"]},
            "message": {"type": "string", "minLength": 1},
            "fields": array(closed({"name": {"type": "string"}, "message": {"type": "string"}})),
            "request_id": {"type": "string", "minLength": 1},
        }
    ),
    "Account": closed(
        {"id": ID, "name": NAME, "parent": nullable(ID), "master": _MASTER}, optional=("master",)
    ),
    "NewAccount": closed(
        {"name": NAME, "parent": nullable(ID), "master": _FLAG}, optional=("parent", "master")
    ),
    "ApiKey": closed(_API_KEY),
    "ApiKeyWithSecret": closed({**_API_KEY, "secret": _SECRET}),
    "ApiKeys": closed({"api_keys": array(ref("ApiKey")), "next_after": nullable(ID)}),
    "NewApiKey": closed(
        {"name": NAME, "scopes": _SCOPES, "expires_at": nullable(MOMENT)}, optional=("expires_at",)
    ),
    "NewSecret": closed(
        {"old_valid_until": {"anyOf": [{"const": "now"}, MOMENT, {"type": "null"}]}},
        optional=("old_valid_until",),
    ),
    "Event": closed(
        {
            "topic": {
                "type": "string",
                "minLength": 1,
                "maxLength": 255,
                "pattern": "^[^\\s\\x00-\\x1f\\x7f]+$",
                "examples": ["device.notifications", "orders.paid"],
            },
            "data": {"description": "Any JSON; on the topics of devices the item that it is."},
            "id": nullable(_TEXT),
            "name": nullable(_TEXT),
            "time": nullable(_TEXT),
            "to": {**nullable(_TEXT), "description": "The id of an API key of the same account."},
            "receipt": {"type": "boolean", "description": "For an hour you can ask what became of it."},
        },
        optional=("id", "name", "time", "to", "receipt"),
    ),
    "Published": closed({"events": array(closed({"id": {"type": "string"}, "channels": COUNT}))}),
    "Receipt": closed(
        {
            "id": {"type": "string"},
            "topic": {"type": "string"},
            "published_at": MOMENT,
            "channels": array(
                closed(
                    {
                        "channel": ID,
                        "state": {"enum": ["queued", "sent", "acked", "dropped"]},
                        "queued_at": MOMENT,
                        "sent_at": MOMENT,
                        "acked_at": MOMENT,
                        "dropped_at": MOMENT,
                        "reason": {"type": "string"},
                    },
                    optional=("queued_at", "sent_at", "acked_at", "dropped_at", "reason"),
                ),
                maxItems=1000,
            ),
            "channels_total": COUNT,
        }
    ),
    "Topics": array(
        {"type": "string", "minLength": 1, "maxLength": 255, "examples": ["orders.*.created"]},
        maxItems=1024,
        description="Words between dots; * stands for one word, # for any number of them.",
    ),
    "Serialization": closed(
        {"type": {"const": "v2"}, "max_chunk_size": _CHUNK, "cfg": closed(dict.fromkeys(_FLAGS, _FLAG))}
    ),
    "SerializationWanted": {
        "type": "object",
        "properties": {
            "type": {"const": "v2"},
            "max_chunk_size": _CHUNK_AS_PUT,
            "cfg": nullable({"type": "object", "properties": dict.fromkeys(_FLAGS, _FLAG_AS_PUT)}),
        },
        "required": ["type"],
    },
    "WebsocketChannel": closed(
        {
            "status": {"enum": ["connected", "disconnected"]},
            "queue_size": COUNT,
            "serialization": ref("Serialization"),
            "dropped": COUNT,
        }
    ),
    "RegisterWebsocketChannel": {
        "type": "object",
        "properties": {"serialization": nullable(ref("SerializationWanted"))},
    },
    "Webhook": closed(
        {
            "url": {"type": "string"},
            "headers": {"type": "object", "additionalProperties": {"type": "string"}},
            "serialization": ref("Serialization"),
        }
    ),
    "RegisterWebhook": {
        "type": "object",
        "properties": {
            "url": {
                "type": "string",
                "pattern": "^[Hh][Tt][Tt][Pp][Ss]?://",
                "maxLength": 400,
                "description": "With the names and values of the headers at most 400 characters.",
            },
            "headers": nullable({"type": "object", "additionalProperties": {"type": "string"}}),
            "serialization": nullable(ref("SerializationWanted")),
        },
        "required": ["url"],
    },
    "ChannelMetadata": closed({"delivery_mechanism": {"enum": ["CALLBACK", "LONG_POLLING", "WEB_SOCKET"]}}),
    "Channel": closed(
        {
            "kind": {"enum": ["websocket", "webhook", "pull"]},
            "connected": {"type": "boolean", "description": "Is a socket or a poll open? Not of a webhook."},
            "queue_size": COUNT,
            "dropped": COUNT,
            "serialization": ref("Serialization"),
            "failing_since": MOMENT,
            "failed_attempts": {"type": "integer", "minimum": 0},
            "next_attempt_at": MOMENT,
        },
        optional=("connected", "failing_since", "failed_attempts", "next_attempt_at"),
    ),
    "Deliveries": closed(
        {
            "deliveries": array(
                closed(
                    {
                        "at": MOMENT,
                        "webhook_id": {"type": "string"},
                        "batch": COUNT,
                        "status": nullable({"type": "integer"}),
                        "error": {"type": "string"},
                        "took_ms": COUNT,
                        "next_attempt_at": nullable(MOMENT),
                    }
                ),
                maxItems=100,
            )
        }
    ),
    "SigningSecret": closed({"signing_secret": {"type": "string", "pattern": "^whsec_"}}),
    "Presubscriptions": array(
        {
            "type": "object",
            "properties": {
                "endpoint-name": nullable(_DEVICE_PATTERN),
                "endpoint-type": nullable(_DEVICE_PATTERN),
                "resource-path": nullable(array({**_DEVICE_PATTERN, "maxLength": 128}, minItems=1)),
            },
            "minProperties": 1,
            "additionalProperties": False,
        },
        maxItems=1024,
    ),
    "NotificationMessage": {
        "type": "object",
        "description": "What an application is told: sections that are not empty, each an array of items.",
        "properties": {
            "async-responses": array({"type": "object", "required": ["id"]}),
            "registrations": array(_DEVICE),
            "reg-updates": array(_DEVICE),
            "de-registrations": array(_GONE),
            "registrations-expired": array(_GONE),
            "notifications": array({"type": "object", "required": ["ep", "path"]}),
            "events": array(
                {
                    "type": "object",
                    "properties": {
                        "id": {"type": "string"},
                        "topic": {"type": "string"},
                        "name": nullable({"type": "string"}),
                        "time": {"type": "string"},
                        "data": {},
                    },
                    "required": ["id", "topic", "name", "time", "data"],
                }
            ),
        },
        "additionalProperties": False,
    },
}
