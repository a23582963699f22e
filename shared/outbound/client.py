"""The client for customers' URLs: one PUT, whose outcome is the status line of the response.

A receiver must not lead it into our own network, hold it longer than one deadline, or fill its memory. So it
checks every address between resolving and connecting, starts the deadline before resolving, and discards
response bodies. A caller with few places resolves first (`resolve`): no place waits for a name server.
"""

import asyncio
import contextlib
import io
import logging
import re
import socket
import ssl
import time
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import aiohttp
from aiohttp.helpers import is_ip_address
from yarl import URL

from shared import telemetry
from shared.model.addresses import AddressPolicy
from shared.outbound.names import Lookup, Names, Resolved
from shared.outbound.resolver import (
    RESOLVED,
    AddressRefused,
    VettingResolver,
    check_address,
    system_lookup,
)
from shared.outbound.response_head import HeadReader, has_begun, status_behind
from shared.tls import client_context

logger = logging.getLogger(__name__)

_BODY_LIMIT_BYTES = 8 * 1024
_BODY_WAIT_S = 0.25
_LINE_LIMIT_BYTES = 8 * 1024
_HEADERS_LIMIT = 100
_IDLE_S = 15
# A longer body must be a file object: aiohttp writes bytes in one step, which blocks the event loop.
_IN_ONE_PIECE_BYTES = 1024 * 1024
_AUTHORITY_END = re.compile(r"[/?#]")
_UNSAFE = re.compile(r"[\x00-\x20\x7f\\]")
_HEADERS = {
    "User-Agent": "notification-gateway",
    "Content-Type": "application/json",
    "Accept-Encoding": "identity",
}


@dataclass(frozen=True, slots=True)
class Attempt:
    """The result of one call. `error` is "" if there was a response, else one of these:

    address-refused, not-resolved, not-connected, tls-failed, closed, bad-answer, timed-out, and not-sendable
    for a URL or headers that make no valid request. `was_reached`: a connection carried the request, so a
    receiver that is out of time got at least its beginning.
    """

    status: int | None
    error: str
    took_ms: int
    was_reached: bool = False

    @property
    def accepted(self) -> bool:
        return self.status in (200, 204)

    @property
    def outcome(self) -> str:
        """`accepted`, `4xx` and the like, or the error: few enough values for a metric's label."""
        return "accepted" if self.accepted else self.error or f"{(self.status or 0) // 100}xx"


class Outbound:
    """Calls customers' URLs, as many at once as its callers begin."""

    def __init__(
        self,
        *,
        policy: AddressPolicy,
        timeout_s: float = 20,
        client_cert: Path | None = None,
        client_key: Path | None = None,
        ca: Path | None = None,
        lookup: Lookup | None = None,
        lookup_ttl_s: int = 10,
    ) -> None:
        """Trusts `ca` beside the system's authorities. Raises OSError if a file cannot be used.

        `lookup` resolves names; the addresses are fresh for `lookup_ttl_s`.
        """
        self._policy = policy
        self._timeout_s = timeout_s
        self._tls = _tls(client_cert=client_cert, client_key=client_key, ca=ca)
        self._names = Names(lookup or system_lookup, fresh_s=lookup_ttl_s)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(
            resolver=VettingResolver(self._policy),
            socket_factory=self._checked_socket,
            ssl=self._tls,
            # It would give the addresses of one call to another.
            use_dns_cache=False,
            limit=0,
            keepalive_timeout=_IDLE_S,
        )
        # aiohttp has no parameter for it.
        vars(connector)["_factory"] = partial(HeadReader, loop=asyncio.get_running_loop())
        self._session = aiohttp.ClientSession(
            connector=connector,
            request_class=_Request,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=_HEADERS,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
            trust_env=False,
            auto_decompress=False,
            read_bufsize=_BODY_LIMIT_BYTES,
            max_line_size=_LINE_LIMIT_BYTES,
            max_field_size=_LINE_LIMIT_BYTES,
            max_headers=_HEADERS_LIMIT,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._session is not None
        await self._session.close()
        await self._names.close()

    async def resolve(self, url: str, *, account: str) -> Resolved:
        """Looks up the host of `url` for a call that is to hold a place: it then waits for no name server.

        Raises nothing: a call with an error fails at once, unless a connection is open.
        """
        host = _host(url)
        if not host or is_ip_address(host):
            return Resolved(host)
        return await self._names.resolve(host, account=account)

    def resolve_again(self, resolved: Resolved, *, account: str) -> Resolved:
        """The newest addresses of a host that has a name, without waiting for a lookup."""
        return self._names.refresh(resolved, account=account)

    async def put(
        self,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes,
        account: str = "",
        resolved: Resolved | None = None,
    ) -> Attempt:
        """Calls `url` once, follows no redirect, and raises nothing.

        It calls a second time only if a connection kept from an earlier call turns out to be dead. Without
        `resolved` it looks the host up for `account` first, within the same deadline.
        """
        attempt = await self._attempt(url, headers, body, account, resolved)
        telemetry.webhook_request_s.record(attempt.took_ms / 1000, {"outcome": attempt.outcome})
        if attempt.error:
            facts = {"origin": _origin(url), "error": attempt.error}
            logger.debug("callback.failed", extra={"facts": facts})
        return attempt

    async def _attempt(
        self, url: str, headers: Mapping[str, str], body: bytes, account: str, resolved: Resolved | None
    ) -> Attempt:
        call = _Call()
        try:
            async with asyncio.timeout(self._timeout_s):
                RESOLVED.set(resolved or await self.resolve(url, account=account))
                response = await self._call(call, url, headers, body)
        except (aiohttp.ClientResponseError, aiohttp.ClientPayloadError) as exc:
            # The parser refused what follows the status line: the status decides, and the connection goes.
            return Attempt(
                call.status, "" if call.status else _error_of(exc), call.took_ms, call.has_connection
            )
        except (aiohttp.ClientError, OSError, ValueError) as exc:
            return Attempt(None, _error_of(exc), call.took_ms, call.has_connection)
        finally:
            if not call.has_response:
                call.abort()
        attempt = Attempt(response.status, "", call.took_ms, call.has_connection)
        try:
            await _discard_body(response)
        finally:
            call.abort_if_stuck()
        return attempt

    async def _call(
        self, call: "_Call", url: str, headers: Mapping[str, str], body: bytes
    ) -> aiohttp.ClientResponse:
        try:
            return await self._send(call, url, headers, body)
        except _ConnectionLost:
            # A receiver that began to respond has read the request.
            if not call.reused or call.has_begun:
                raise
        return await self._send(call, url, headers, body)

    async def _send(
        self, call: "_Call", url: str, headers: Mapping[str, str], body: bytes
    ) -> aiohttp.ClientResponse:
        assert self._session is not None
        if _UNSAFE.search(url):
            raise ValueError("not a URL")
        response = await self._session.put(
            _url(url),
            data=body if len(body) < _IN_ONE_PIECE_BYTES else io.BytesIO(body),
            headers=headers,
            allow_redirects=False,
            middlewares=(call,),
        )
        call.has_response = True
        return response

    def _checked_socket(self, address: Any) -> socket.socket:
        """Checks the address that aiohttp is about to connect to: a URL may name one without resolving."""
        family, kind, protocol, _, sockaddr = address
        check_address(sockaddr[0], self._policy)
        return socket.socket(family=family, type=kind, proto=protocol)


class _ConnectionLost(aiohttp.ClientError):
    """The connection was lost before a response. aiohttp would retry by itself after an error of its own."""


# The last request on each connection.
_LAST: weakref.WeakKeyDictionary[Any, object] = weakref.WeakKeyDictionary()


class _Request(aiohttp.ClientRequest):
    """A request that knows its connection, which must be aborted, not closed, if the call is given up.

    `reused`: the connection has carried other requests, so the receiver may have closed it before this one.
    """

    transport: asyncio.Transport | None = None
    reused = False
    _protocol: Any = None

    async def send(self, conn: Any) -> aiohttp.ClientResponse:
        self.transport, self._protocol = conn.transport, conn.protocol
        self._protocol.begin()
        self.reused = self._protocol in _LAST
        self._id = _LAST[self._protocol] = object()
        return await super().send(conn)

    @property
    def status(self) -> int | None:
        return status_behind(self._protocol)

    @property
    def is_last(self) -> bool:
        """No later request has used the connection."""
        return self._protocol is not None and _LAST.get(self._protocol) is self._id


class _Call:
    """One call, followed through aiohttp as its middleware."""

    def __init__(self) -> None:
        self.has_response = False
        self.reused = False
        self._started_s = time.monotonic()
        self._request: _Request | None = None

    async def __call__(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        assert isinstance(request, _Request)
        try:
            return await handler(request)
        except aiohttp.ClientConnectorError:
            raise
        except (aiohttp.ClientConnectionError, OSError) as exc:
            raise _ConnectionLost from exc
        finally:
            self._request, self.reused = request, request.reused

    @property
    def took_ms(self) -> int:
        return round((time.monotonic() - self._started_s) * 1000)

    @property
    def has_connection(self) -> bool:
        return self._request is not None and self._request.transport is not None

    @property
    def status(self) -> int | None:
        """The status that has arrived, also if the rest of the response could not be parsed."""
        return self._request.status if self._request is not None else None

    @property
    def has_begun(self) -> bool:
        return self._request is not None and has_begun(self._request._protocol)

    def abort(self) -> None:
        """Aborts the connection: closing would wait for a receiver that does not read what was sent."""
        if self._request is not None and self._request.transport is not None:
            self._request.transport.abort()

    def abort_if_stuck(self) -> None:
        """Aborts the connection if the response came before all was sent, or was not read to its end."""
        # The connection may be back in the pool, and carry another call.
        if self._request is None or not self._request.is_last or self._request.transport is None:
            return
        if self._request.transport.is_closing() or self._request.transport.get_write_buffer_size():
            self._request.transport.abort()


async def _discard_body(response: aiohttp.ClientResponse) -> None:
    """Reads a short body, so that the connection can be kept; closes the connection otherwise."""
    left = _BODY_LIMIT_BYTES
    try:
        async with asyncio.timeout(_BODY_WAIT_S):
            while left > 0 and (chunk := await response.content.read(left)):
                left -= len(chunk)
    except (aiohttp.ClientError, OSError):
        pass
    finally:
        response.close()


def _error_of(exc: Exception) -> str:
    """A constant: aiohttp's own messages quote hosts and what the receiver sent."""
    match exc:
        case TimeoutError():
            return "timed-out"
        case aiohttp.ClientConnectorError(os_error=AddressRefused()):
            return "address-refused"
        case aiohttp.ClientConnectorDNSError():
            return "not-resolved"
        case aiohttp.ClientSSLError():
            return "tls-failed"
        case aiohttp.ClientConnectorError():
            return "not-connected"
        case aiohttp.ClientResponseError() | aiohttp.ClientPayloadError():
            return "bad-answer"
        case ValueError() | aiohttp.NonHttpUrlClientError():
            return "not-sendable"
        case _:
            return "closed"


def _tls(*, client_cert: Path | None, client_key: Path | None, ca: Path | None) -> ssl.SSLContext:
    context = client_context()
    # A context of one's own has none, and aiohttp adds none: receivers that want it (Go's) close.
    context.set_alpn_protocols(["http/1.1"])
    if ca is not None:
        context.load_verify_locations(ca)
    if client_cert is not None:
        # Without a password OpenSSL asks for one at the terminal.
        context.load_cert_chain(client_cert, client_key, password="")
    return context


def _url(url: str) -> URL:
    """The URL as it was given: a receiver may compare it byte by byte. Only what is not ASCII is encoded.

    Raises ValueError.
    """
    if url.isascii():
        return URL(url, encoded=True)
    scheme, slashes, rest = url.partition("//")
    end = _AUTHORITY_END.search(rest)
    at = len(rest) if end is None else end.start()
    authority, target = rest[:at], rest[at:]
    if not authority.isascii():
        host, colon, port = authority.partition(":")
        authority = f"{URL(f'http://{host}').raw_host}{colon}{port}"
    encoded = "".join(sign if sign.isascii() else quote(sign) for sign in target)
    return URL(scheme + slashes + authority + encoded, encoded=True)


def _host(url: str) -> str:
    """The name that aiohttp will ask for; "" if the URL has none."""
    if _UNSAFE.search(url):
        return ""
    with contextlib.suppress(ValueError):
        host = _url(url).raw_host or ""
        return host.rstrip(".") + "." if host.endswith("..") else host
    return ""


def _origin(url: str) -> str:
    """Scheme and host: a path or query may hold a secret."""
    with contextlib.suppress(ValueError):
        parts = URL(url)
        return f"{parts.scheme}://{parts.host}"
    return ""
