"""Crossbar's envelopes for success and error responses (section 2)."""

from dataclasses import dataclass
from typing import Any

import orjson

from shared.model.sessions import Session
from shared.wire.times import moment_text

# From the year 0 of Erlang's calendar to 1970.
_GREGORIAN_EPOCH_S = 62_167_219_200


@dataclass(frozen=True, slots=True)
class EnvelopeContext:
    """The fields of every envelope beside its data; `auth_token` is the caller's token, if it sent one."""

    request_id: str
    node: str
    version: str
    now_ms: int
    auth_token: str | None = None
    pretty: bool = False


def success_body(data: Any, context: EnvelopeContext) -> bytes:
    return _encode({"data": data, "status": "success", **_common(context)}, context)


def error_body(status: int, message: str, data: Any, context: EnvelopeContext) -> bytes:
    """`message` is the error's symbolic name; `data` explains it."""
    body = {"data": data, "error": str(status), "message": message, "status": "error", **_common(context)}
    return _encode(body, context)


def gregorian_s(ms: int) -> int:
    """Whole seconds since the year 0, from ms since 1970."""
    return ms // 1000 + _GREGORIAN_EPOCH_S


def socket_object(session: Session) -> dict[str, Any]:
    """A session as it is listed; without the fields that its client did not set."""
    named = {"name": session.name} if session.name else {}
    described = {"metadata": orjson.Fragment(session.metadata)} if session.metadata else {}
    return {
        "bindings": list(session.bindings),
        "websocket_session_id": session.id,
        "timestamp": gregorian_s(session.connected_at_ms),
        "destination": session.destination,
        "source": session.source,
        **named,
        **described,
    }


def _common(context: EnvelopeContext) -> dict[str, Any]:
    token = {} if context.auth_token is None else {"auth_token": context.auth_token}
    return {
        "timestamp": moment_text(context.now_ms)[:19] + "Z",
        "version": context.version,
        "node": context.node,
        "request_id": context.request_id,
        **token,
    }


def _encode(body: dict[str, Any], context: EnvelopeContext) -> bytes:
    return orjson.dumps(body, option=orjson.OPT_INDENT_2 if context.pretty else None)
