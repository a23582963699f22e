"""Crossbar's answers: one envelope for what was asked, another for what went wrong (section 2)."""

from dataclasses import dataclass
from typing import Any

import orjson

from shared.model.sessions import Session
from shared.wire.times import moment_text

# From the year 0, as Erlang's calendar counts, to 1970.
_GREGORIAN_EPOCH_S = 62_167_219_200


@dataclass(frozen=True, slots=True)
class Told:
    """What every envelope tells beside its data; `auth_token` is what the caller sent, if it sent one."""

    request_id: str
    node: str
    version: str
    now_ms: int
    auth_token: str | None = None
    pretty: bool = False


def success_body(data: Any, told: Told) -> bytes:
    return _written({"data": data, "status": "success", **_common(told)}, told)


def error_body(status: int, message: str, data: Any, told: Told) -> bytes:
    """`message` is the symbolic name; what a reader wants to know is in the data."""
    body = {"data": data, "error": str(status), "message": message, "status": "error", **_common(told)}
    return _written(body, told)


def gregorian_s(ms: int) -> int:
    """Whole seconds since the year 0, from ms since 1970."""
    return ms // 1000 + _GREGORIAN_EPOCH_S


def socket_object(session: Session) -> dict[str, Any]:
    """A session as it is listed; what its client did not say is left out."""
    named = {"name": session.name} if session.name else {}
    described = {"metadata": orjson.loads(session.metadata)} if session.metadata else {}
    return {
        "bindings": list(session.bindings),
        "websocket_session_id": session.id,
        "timestamp": gregorian_s(session.connected_at_ms),
        "destination": session.destination,
        "source": session.source,
        **named,
        **described,
    }


def _common(told: Told) -> dict[str, Any]:
    proven = {} if told.auth_token is None else {"auth_token": told.auth_token}
    return {
        "timestamp": moment_text(told.now_ms)[:19] + "Z",
        "version": told.version,
        "node": told.node,
        "request_id": told.request_id,
        **proven,
    }


def _written(body: dict[str, Any], told: Told) -> bytes:
    return orjson.dumps(body, option=orjson.OPT_INDENT_2 if told.pretty else None)
