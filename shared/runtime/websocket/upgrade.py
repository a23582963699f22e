"""Upgrades to a WebSocket: checks a parsed HTTP request, and writes the response (RFC 6455, 4).

The bounds are smaller than for other requests: 8 KiB a line, 128 lines.
"""

import base64
import binascii
import hashlib
from collections.abc import Callable, Iterable, Sequence
from http import HTTPStatus
from typing import Any, NamedTuple

from websockets.exceptions import InvalidHeader
from websockets.headers import parse_connection, parse_subprotocol, parse_upgrade

from shared.runtime.http.request_head import members
from shared.runtime.http.responses import REQUEST_ID, draining, error_body, internal_error, new_request_id

Headers = Sequence[tuple[bytes, bytes]]
"""Names in lower case, in the order of the request."""

_LINE_LIMIT_BYTES = 8 * 1024
_LINE_LIMIT = 128
_CONNECTION, _UPGRADE = [b"Upgrade"], [b"websocket"]
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Rejection(NamedTuple):
    """Why an upgrade is rejected: status, message, and the header that is wrong, if any."""

    status: int
    message: str
    header: str = ""


DRAINING = Rejection(503, draining().detail)
INTERNAL_ERROR = Rejection(500, internal_error().detail)
UNAVAILABLE = Rejection(503, "the handshake cannot be completed now; connect again")


def check_upgrade(url: bytes, headers: Headers) -> Rejection | None:
    """None when the upgrade request is valid. The message never repeats the path."""
    if not _is_within_bounds(url, headers):
        return Rejection(431, "a header is too long, or there are too many")
    if values(headers, b"sec-websocket-version") != [b"13"]:
        return Rejection(426, "Sec-WebSocket-Version must be 13", "Sec-WebSocket-Version")
    return _check_key(values(headers, b"sec-websocket-key")) or _check_lists(headers)


def values(headers: Headers, name: bytes) -> list[bytes]:
    return [value for given, value in headers if given == name]


def subprotocols_in(headers: Headers) -> list[str]:
    """The offered subprotocols. Raises InvalidHeader.

    Ignores quotes: early Pelion documents showed the whole list in quotes, and clients copied that.
    """
    offered = [(name, value.replace(b'"', b"")) for name, value in headers]
    return list(_parsed(parse_subprotocol, offered, b"sec-websocket-protocol"))


def accept_response(headers: Headers, more: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The response that opens the socket, with additional headers."""
    (key,) = values(headers, b"sec-websocket-key")
    accept_key = base64.b64encode(hashlib.sha1(key.strip() + _GUID, usedforsecurity=False).digest())
    own = [(b"upgrade", b"websocket"), (b"connection", b"Upgrade"), (b"sec-websocket-accept", accept_key)]
    return response(101, [*own, *more])


def rejection_response(rejection: Rejection, headers: Headers) -> bytes:
    """An HTTP error in our usual form."""
    given = values(headers, REQUEST_ID.encode())
    request_id = new_request_id(given[0].decode("latin-1") if given else "")
    fields = [(rejection.header, rejection.message)] if rejection.header else []
    body = error_body(rejection.status, rejection.message, request_id=request_id, fields=fields)
    lines = [
        (b"content-type", b"application/json"),
        (REQUEST_ID.encode(), request_id.encode()),
        (b"sec-websocket-version", b"13"),
        (b"upgrade", b"websocket"),
    ]
    if rejection.status == 503:
        lines.append((b"retry-after", b"1"))
    return response(rejection.status, lines, body)


def response(status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes | None = None) -> bytes:
    """The bytes of an HTTP response. One with a body is the last on its connection."""
    lines = [b"HTTP/1.1 %d %s" % (status, HTTPStatus(status).phrase.encode())]
    lines += [b"%s: %s" % pair for pair in headers]
    if body is not None:
        lines += [b"content-length: %d" % len(body), b"connection: close"]
    return b"\r\n".join([*lines, b"", body or b""])


def _is_within_bounds(url: bytes, headers: Headers) -> bool:
    if len(url) > _LINE_LIMIT_BYTES or len(headers) > _LINE_LIMIT:
        return False
    return all(len(name) + len(value) <= _LINE_LIMIT_BYTES for name, value in headers)


def _check_key(keys: list[bytes]) -> Rejection | None:
    if len(keys) != 1:
        return Rejection(400, "Sec-WebSocket-Key must be given once", "Sec-WebSocket-Key")
    try:
        nonce = base64.b64decode(keys[0].strip(), validate=True)
    except binascii.Error:
        nonce = b""
    if len(nonce) != 16:
        return Rejection(400, "Sec-WebSocket-Key must be 16 bytes in base64", "Sec-WebSocket-Key")
    return None


def _check_lists(headers: Headers) -> Rejection | None:
    try:
        subprotocols_in(headers)
        if values(headers, b"connection") == _CONNECTION and values(headers, b"upgrade") == _UPGRADE:
            # What nearly all clients send.
            return None
        _parsed(parse_connection, headers, b"connection")
        upgrades = _parsed(parse_upgrade, headers, b"upgrade")
    except InvalidHeader as error:
        return Rejection(400, f"{error.name} is malformed", error.name)
    # The client may offer other protocols too (RFC 9110, 7.8): we choose.
    if "websocket" not in [name.lower() for name in upgrades]:
        return Rejection(426, "Upgrade must be websocket", "Upgrade")
    return None


def _parsed(parse: Callable[[str], Sequence[Any]], headers: Headers, name: bytes) -> Sequence[Any]:
    """A header that is a list, from all its lines. Raises InvalidHeader, also for one without a member."""
    if not values(headers, name):
        return ()
    return parse(b",".join(members(headers, name)).decode("latin-1"))
