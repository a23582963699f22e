"""The only place that calls a customer's URL: one PUT, judged by the head of its answer.

Three things a receiver must not be able to do: lead us into our own network, hold us longer than one
deadline, and make us keep what it sends. So every address is judged between look-up and connection, the
deadline starts before the look-up, and of an answer's body little is read and nothing kept.
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
from pathlib import Path
from typing import Any, Self

import aiohttp
from yarl import URL

from shared import telemetry
from shared.model.addresses import AddressPolicy
from shared.outbound.resolver import AddressRefused, Lookup, SystemResolver, VettingResolver, judge

logger = logging.getLogger(__name__)

TAKEN = frozenset({200, 204})

_BODY_LIMIT_BYTES = 8 * 1024
_BODY_WAIT_S = 0.25
_LINE_LIMIT_BYTES = 8 * 1024
_HEADERS_LIMIT = 100
_IDLE_S = 15
# From here on aiohttp wants a body in pieces, so that writing it does not stop the loop.
_IN_ONE_PIECE_BYTES = 1024 * 1024
_UNSAFE = re.compile(r"[\x00-\x20\x7f\\]")
_HEADERS = {
    "User-Agent": "notification-gateway",
    "Content-Type": "application/json",
    "Accept-Encoding": "identity",
}


@dataclass(frozen=True, slots=True)
class Attempt:
    """What came of one call, of which nothing else is kept. `error` is a constant word, "" with an answer.

    The words: address-refused, not-resolved, not-connected, tls-failed, closed, bad-answer, timed-out, and
    not-sendable for what is no request at all.
    """

    status: int | None
    error: str
    took_ms: int

    @property
    def taken(self) -> bool:
        return self.status in TAKEN

    @property
    def outcome(self) -> str:
        """`taken`, `4xx` and the like, or the error: few enough words for a metric's label."""
        return "taken" if self.taken else self.error or f"{(self.status or 0) // 100}xx"


class Outbound:
    """Pipeline customers' URLs. At most `calls_at_once`; who waits for a place does not use up its deadline."""

    def __init__(
        self,
        *,
        policy: AddressPolicy,
        timeout_s: float = 20,
        calls_at_once: int = 1000,
        client_cert: Path | None = None,
        client_key: Path | None = None,
        ca: Path | None = None,
        lookup: Lookup | None = None,
        lookup_ttl_s: int = 10,
    ) -> None:
        """`ca` is trusted besides the system's authorities. Raises OSError when a file cannot be used.

        `lookup` is asked for a name's addresses, its answer kept for `lookup_ttl_s`: judged as it came.
        """
        self._policy = policy
        self._timeout_s = timeout_s
        self._places = asyncio.Semaphore(calls_at_once)
        self._tls = _tls(client_cert=client_cert, client_key=client_key, ca=ca)
        self._look_up = lookup or SystemResolver()
        self._look_up_ttl_s = lookup_ttl_s
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(
            resolver=VettingResolver(self._look_up, self._policy),
            socket_factory=self._judged_socket,
            ssl=self._tls,
            ttl_dns_cache=self._look_up_ttl_s,
            limit=0,
            keepalive_timeout=_IDLE_S,
        )
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

    async def put(self, url: str, *, headers: Mapping[str, str], body: bytes) -> Attempt:
        """Pipeline `url`, and tells what came of it, whatever that is. A redirect is an answer like any other.

        Only where a connection was kept from an earlier call, and turns out dead, it is called once more.
        """
        async with self._places:
            attempt = await self._attempt(url, headers, body)
        telemetry.called(attempt.outcome, attempt.took_ms / 1000)
        if attempt.error:
            facts = {"origin": _origin(url), "error": attempt.error}
            logger.debug("callback.failed", extra={"facts": facts})
        return attempt

    async def _attempt(self, url: str, headers: Mapping[str, str], body: bytes) -> Attempt:
        call = _Call()
        try:
            async with asyncio.timeout(self._timeout_s):
                response = await self._head(call, url, headers, body)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return Attempt(None, _word_for(error), call.took_ms)
        finally:
            if not call.answered:
                call.cut()
        attempt = Attempt(response.status, "", call.took_ms)
        try:
            await _leave(response)
        finally:
            call.cut_if_stuck()
        return attempt

    async def _head(
        self, call: "_Call", url: str, headers: Mapping[str, str], body: bytes
    ) -> aiohttp.ClientResponse:
        try:
            return await self._request(call, url, headers, body)
        except _Dropped:
            if not call.reused:
                raise
        return await self._request(call, url, headers, body)

    async def _request(
        self, call: "_Call", url: str, headers: Mapping[str, str], body: bytes
    ) -> aiohttp.ClientResponse:
        assert self._session is not None
        if _UNSAFE.search(url):
            raise ValueError("not a URL")
        response = await self._session.put(
            # As it was written, where that is possible at all: not every receiver normalizes as we would.
            URL(url, encoded=url.isascii()),
            data=body if len(body) < _IN_ONE_PIECE_BYTES else io.BytesIO(body),
            headers=headers,
            allow_redirects=False,
            middlewares=(call,),
        )
        call.answered = True
        return response

    def _judged_socket(self, address: Any) -> socket.socket:
        """A socket for the very address it will be connected to; the only way there is to one."""
        family, kind, protocol, _, where = address
        judge(where[0], self._policy)
        return socket.socket(family=family, type=kind, proto=protocol)


class _Dropped(aiohttp.ClientError):
    """The connection was lost before an answer. Not aiohttp's own, which it would try again by itself."""


# The last request that each connection has carried, by a mark of its own.
_LAST: weakref.WeakKeyDictionary[Any, object] = weakref.WeakKeyDictionary()


class _Request(aiohttp.ClientRequest):
    """Remembers its connection: what is not over when we give up must be cut, not closed.

    `reused` tells that it has carried others: an end that it meets now may be an old one.
    """

    transport: asyncio.Transport | None = None
    reused = False
    _protocol: Any = None

    async def send(self, conn: Any) -> aiohttp.ClientResponse:
        self.transport, self._protocol = conn.transport, conn.protocol
        self.reused = self._protocol in _LAST
        self._mark = _LAST[self._protocol] = object()
        return await super().send(conn)

    @property
    def is_last(self) -> bool:
        """Has the connection carried nothing since?"""
        return self._protocol is not None and _LAST.get(self._protocol) is self._mark


class _Call:
    """One call's way through aiohttp, as its middleware."""

    def __init__(self) -> None:
        self.answered = False
        self.reused = False
        self._began = time.monotonic()
        self._request: _Request | None = None

    async def __call__(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        assert isinstance(request, _Request)
        try:
            return await handler(request)
        except aiohttp.ClientConnectorError:
            raise
        except (aiohttp.ClientConnectionError, OSError) as error:
            raise _Dropped from error
        finally:
            self._request, self.reused = request, request.reused

    @property
    def took_ms(self) -> int:
        return round((time.monotonic() - self._began) * 1000)

    def cut(self) -> None:
        """Ends the connection at once: closing waits until all is sent, for a receiver that reads nothing."""
        if self._request is not None and self._request.transport is not None:
            self._request.transport.abort()

    def cut_if_stuck(self) -> None:
        """The same after an answer that came before all was sent, or was not read to its end."""
        # It may have gone back to the others, and carry another call already.
        if self._request is None or not self._request.is_last or self._request.transport is None:
            return
        if self._request.transport.is_closing() or self._request.transport.get_write_buffer_size():
            self._request.transport.abort()


async def _leave(response: aiohttp.ClientResponse) -> None:
    """Reads the body if it is short and there: then the connection is kept. Else it is closed."""
    left = _BODY_LIMIT_BYTES
    try:
        async with asyncio.timeout(_BODY_WAIT_S):
            while left > 0 and (piece := await response.content.read(left)):
                left -= len(piece)
    except (aiohttp.ClientError, OSError):
        pass
    finally:
        response.close()


def _word_for(error: Exception) -> str:
    """The error as a constant word: aiohttp's own texts show hosts and what the receiver sent."""
    match error:
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
    context = ssl.create_default_context()
    if ca is not None:
        context.load_verify_locations(ca)
    if client_cert is not None:
        # An empty password: OpenSSL would otherwise ask for one at the terminal.
        context.load_cert_chain(client_cert, client_key, password="")
    return context


def _origin(url: str) -> str:
    """Scheme and host: a path or query may hold a secret."""
    with contextlib.suppress(ValueError):
        parts = URL(url)
        return f"{parts.scheme}://{parts.host}"
    return ""
