"""An upgrade to a WebSocket: what is wrong with the request, and the bytes of the answer (RFC 6455, 4).

It has been read as an HTTP request before. Its bounds are smaller: 8 KiB a line, 128 lines.
"""

import base64
import binascii
import hashlib
from collections.abc import Callable, Iterable, Sequence
from http import HTTPStatus
from typing import Any, NamedTuple

from websockets.exceptions import InvalidHeader
from websockets.headers import parse_connection, parse_subprotocol, parse_upgrade

from shared.runtime.http.responses import REQUEST_ID, error_body, new_request_id

Headers = Sequence[tuple[bytes, bytes]]
"""Names in lower case, in the order they came."""

_LINE_LIMIT_BYTES = 8 * 1024
_LINE_LIMIT = 128
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Fault(NamedTuple):
    """Why an upgrade is refused: the status, a sentence, and the header that it is about, if it is one."""

    status: int
    message: str
    header: str = ""


def fault_in(url: bytes, headers: Headers) -> Fault | None:
    """What is wrong with an upgrade request; None when it is in order. Says nothing of its path."""
    if not _is_within_bounds(url, headers):
        return Fault(431, "a header is too long, or there are too many")
    if not url.isascii():
        return Fault(400, "the upgrade request is malformed")
    if values(headers, b"sec-websocket-version") != [b"13"]:
        return Fault(426, "Sec-WebSocket-Version must be 13", "Sec-WebSocket-Version")
    return _key_fault(values(headers, b"sec-websocket-key")) or _list_fault(headers)


def values(headers: Headers, name: bytes) -> list[bytes]:
    return [value for given, value in headers if given == name]


def subprotocols_in(headers: Headers) -> list[str]:
    """Those that are offered. Raises InvalidHeader.

    Early documents of one dialect showed the whole list in quotes; clients copied that.
    """
    offered = values(headers, b"sec-websocket-protocol")
    lists = (_parsed(parse_subprotocol, value.replace(b'"', b"")) for value in offered)
    return [subprotocol for names in lists for subprotocol in names]


def accepted(headers: Headers, more: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The answer that opens the socket, with these headers besides its own."""
    (key,) = values(headers, b"sec-websocket-key")
    accept_key = base64.b64encode(hashlib.sha1(key.strip() + _GUID, usedforsecurity=False).digest())
    own = [(b"upgrade", b"websocket"), (b"connection", b"Upgrade"), (b"sec-websocket-accept", accept_key)]
    return answer(101, [*own, *more])


def refused(error: Fault, headers: Headers) -> bytes:
    """The answer to a request that is not in order, in our form of error."""
    given = values(headers, REQUEST_ID.encode())
    request_id = new_request_id(given[0].decode("latin-1") if given else "")
    fields = [(error.header, error.message)] if error.header else []
    body = error_body(error.status, error.message, request_id=request_id, fields=fields)
    lines = [
        (b"content-type", b"application/json"),
        (REQUEST_ID.encode(), request_id.encode()),
        (b"sec-websocket-version", b"13"),
        (b"upgrade", b"websocket"),
    ]
    return answer(error.status, lines, body)


def answer(status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes | None = None) -> bytes:
    """A whole HTTP answer; with a body it is the last one on its connection."""
    lines = [b"HTTP/1.1 %d %s" % (status, HTTPStatus(status).phrase.encode())]
    lines += [b"%s: %s" % pair for pair in headers]
    if body is not None:
        lines += [b"content-length: %d" % len(body), b"connection: close"]
    return b"\r\n".join([*lines, b"", body or b""])


def _is_within_bounds(url: bytes, headers: Headers) -> bool:
    longest = max((len(name) + len(value) for name, value in headers), default=0)
    return max(len(url), longest) <= _LINE_LIMIT_BYTES and len(headers) <= _LINE_LIMIT


def _key_fault(keys: list[bytes]) -> Fault | None:
    if len(keys) != 1:
        return Fault(400, "Sec-WebSocket-Key must be given once", "Sec-WebSocket-Key")
    try:
        nonce = base64.b64decode(keys[0].strip(), validate=True)
    except binascii.Error:
        nonce = b""
    if len(nonce) != 16:
        return Fault(400, "Sec-WebSocket-Key must be 16 bytes in base64", "Sec-WebSocket-Key")
    return None


def _list_fault(headers: Headers) -> Fault | None:
    try:
        for value in values(headers, b"connection"):
            _parsed(parse_connection, value)
        upgrades = [word for value in values(headers, b"upgrade") for word in _parsed(parse_upgrade, value)]
        subprotocols_in(headers)
    except InvalidHeader as error:
        return Fault(400, f"{error.name} is malformed", error.name)
    if [word.lower() for word in upgrades] != ["websocket"]:
        return Fault(426, "Upgrade must be websocket, once", "Upgrade")
    if len(values(headers, b"origin")) > 1:
        return Fault(400, "Origin is malformed", "Origin")
    return None


def _parsed(parse: Callable[[str], Sequence[Any]], value: bytes) -> Sequence[Any]:
    return parse(value.decode("latin-1"))
