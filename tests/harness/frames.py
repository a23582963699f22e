"""What came over connections that stay open, held to the AsyncAPI document."""

from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

import jsonschema_rs

from services.gateway.app import ASYNC_DOCUMENT
from services.gateway.operations import Json

SERVER, CLIENT = "send", "receive"
"""Who says it, in the document's words: its application is the server."""


class Documented(NamedTuple):
    """A message of the document."""

    name: str
    payload: jsonschema_rs.Draft7Validator
    headers: jsonschema_rs.Draft7Validator | None


def check_frame(channel: str, by: str, payload: Any, headers: dict[str, str] | None = None) -> str:
    """The name of the one message that it is. Fails the test if it is none, or could be two."""
    found = [
        each.name
        for each in messages(channel, by)
        if each.payload.is_valid(payload) and (each.headers is None or each.headers.is_valid(headers or {}))
    ]
    assert len(found) == 1, f"{payload} of {channel} is {found or 'no message of the document'}"
    return found[0]


@cache
def messages(channel: str, by: str) -> list[Documented]:
    """What one side says on a channel."""
    return [
        Documented(name, _validator(message["payload"]), _of_headers(message))
        for name, message in ASYNC_DOCUMENT["channels"][channel]["messages"].items()
        if name in set(_said(channel, by))
    ]


def _said(channel: str, by: str) -> Iterator[str]:
    for operation in ASYNC_DOCUMENT["operations"].values():
        if operation["channel"]["$ref"].split("/")[-1] != channel:
            continue
        said = operation["messages"] if operation["action"] == by else []
        replies = operation.get("reply", {}).get("messages", []) if by == SERVER else []
        yield from (each["$ref"].split("/")[-1] for each in (*said, *replies))


def _of_headers(message: Json) -> jsonschema_rs.Draft7Validator | None:
    return _validator(message["headers"]) if "headers" in message else None


def _validator(schema: Json) -> jsonschema_rs.Draft7Validator:
    whole = {**schema, "components": ASYNC_DOCUMENT["components"]}
    if "$ref" in schema:
        # In this draft what stands beside a reference is ignored.
        whole = {"allOf": [schema], "components": ASYNC_DOCUMENT["components"]}
    return jsonschema_rs.Draft7Validator(whole, validate_formats=True)
