"""The client for customers' URLs: one request, whose outcome is the status line of the response.

A receiver must not lead it into our own network, hold it longer than one deadline, or fill its memory. So it
checks every address between resolving and connecting, starts the deadline before resolving, and keeps no more
than the beginning of a response. A caller with few places resolves first (`resolve`): no place waits for a
name server.
"""

import asyncio
import io
import logging
import socket
import ssl
from collections.abc import Container, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Self

import aiohttp
from aiohttp.helpers import is_ip_address

from shared import telemetry
from shared.model.addresses import AddressPolicy
from shared.model.client_certificates import ClientCertificate
from shared.model.webhook_answers import redirect
from shared.outbound.attempt import OK_OR_NO_CONTENT, head_of
from shared.outbound.attempt import Attempt as Attempt
from shared.outbound.calls import Call, ConnectionLost, Request, read_body
from shared.outbound.certificates import CertificateUnusable, Contexts, usual_context
from shared.outbound.errors import failure_of
from shared.outbound.names import Lookup, Names, Resolved
from shared.outbound.proxy import EgressProxy, ProxiedConnector
from shared.outbound.resolver import (
    RESOLVED,
    VettingResolver,
    check_address,
    system_lookup,
)
from shared.outbound.response_head import HeadReader
from shared.outbound.urls import host_of, origin_of, parsed

logger = logging.getLogger(__name__)

_READ_BUFFER_BYTES = 8 * 1024
_LINE_LIMIT_BYTES = 8 * 1024
_HEADERS_LIMIT = 100
_IDLE_S = 15
# A longer body must be a file object: aiohttp writes bytes in one step, which blocks the event loop.
_IN_ONE_PIECE_BYTES = 1024 * 1024
_REDIRECTS = (301, 302, 303, 307, 308)
_HEADERS = {
    "User-Agent": "notification-gateway",
    "Content-Type": "application/json",
    "Accept-Encoding": "identity",
}


@dataclass(frozen=True, slots=True)
class _Outgoing:
    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes
    certificate: ClientCertificate | None


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
        proxy: str | None = None,
    ) -> None:
        """Trusts `ca` beside the system's authorities. Raises OSError if a file cannot be used.

        `lookup` resolves names; the addresses are fresh for `lookup_ttl_s`. `proxy` is the URL of a forward
        proxy, through which every connection goes.
        """
        self._policy = policy
        self._timeout_s = timeout_s
        self._tls = usual_context(client_cert=client_cert, client_key=client_key, ca=ca)
        self._contexts = Contexts(ca=ca)
        self._names = Names(lookup or system_lookup, fresh_s=lookup_ttl_s)
        self._proxy = EgressProxy(proxy, names=self._names, policy=policy) if proxy else None
        self._session: aiohttp.ClientSession | None = None

    def _connector(self) -> aiohttp.TCPConnector:
        make = partial(ProxiedConnector, self._proxy) if self._proxy else aiohttp.TCPConnector
        return make(
            resolver=VettingResolver(self._policy),
            socket_factory=self._checked_socket,
            ssl=self._tls,
            # It would give the addresses of one call to another.
            use_dns_cache=False,
            limit=0,
            keepalive_timeout=_IDLE_S,
        )

    async def __aenter__(self) -> Self:
        connector = self._connector()
        # aiohttp has no parameter for it.
        vars(connector)["_factory"] = partial(HeadReader, loop=asyncio.get_running_loop())
        self._session = aiohttp.ClientSession(
            connector=connector,
            request_class=Request,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=_HEADERS,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
            trust_env=False,
            auto_decompress=False,
            read_bufsize=_READ_BUFFER_BYTES,
            max_line_size=_LINE_LIMIT_BYTES,
            max_field_size=_LINE_LIMIT_BYTES,
            max_headers=_HEADERS_LIMIT,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._session is not None
        await self._session.close()
        await self._names.close()
        await self._contexts.close()

    async def resolve(self, url: str, *, account: str) -> Resolved:
        """Looks up the host of `url` for a call that is to hold a place: it then waits for no name server.

        Raises nothing: a call with an error fails at once, unless a connection is open.
        """
        host = host_of(url)
        if not host or is_ip_address(host):
            return Resolved(host)
        return await self._names.resolve(host, account=account)

    def resolve_again(self, resolved: Resolved, *, account: str) -> Resolved:
        """The newest addresses of a host that has a name, without waiting for a lookup."""
        return self._names.refresh(resolved, account=account)

    async def send(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes,
        account: str = "",
        resolved: Resolved | None = None,
        timeout_s: float | None = None,
        success: Container[int] = OK_OR_NO_CONTENT,
        certificate: ClientCertificate | None = None,
    ) -> Attempt:
        """Calls `url` once, follows no redirect, and raises nothing. `timeout_s` replaces the usual deadline.

        A status of `success` accepts it. A receiver that asks for a client certificate gets `certificate`, in
        place of the usual one.

        It calls a second time only if a connection kept from an earlier call turns out to be dead. Without
        `resolved` it looks the host up for `account` first, within the same deadline.
        """
        request = _Outgoing(method, url, headers, body, certificate)
        limit_s = self._timeout_s if timeout_s is None else timeout_s
        attempt = replace(await self._attempt(request, account, resolved, limit_s), success=success)
        telemetry.webhook_request_s.record(attempt.took_ms / 1000, {"outcome": attempt.outcome})
        if attempt.error:
            facts = {"origin": origin_of(url), "error": attempt.error}
            logger.debug("callback.failed", extra={"facts": facts})
        return attempt

    async def _attempt(
        self, request: "_Outgoing", account: str, resolved: Resolved | None, timeout_s: float
    ) -> Attempt:
        call = Call()
        try:
            async with asyncio.timeout(timeout_s):
                RESOLVED.set(resolved or await self.resolve(request.url, account=account))
                tls: ssl.SSLContext | bool = True
                if request.certificate is not None and parsed(request.url).scheme == "https":
                    tls = await self._contexts.of(request.certificate, account=account)
                response = await self._call(call, request, tls)
        except (aiohttp.ClientError, CertificateUnusable, OSError, ValueError) as exc:
            refused = isinstance(exc, aiohttp.ClientResponseError | aiohttp.ClientPayloadError)
            if refused and call.status:
                # The parser refused what follows the status line: the status decides, the connection goes.
                return Attempt(call.status, "", call.took_ms, call.has_connection)
            failure = failure_of(exc, request.url, timeout_s=timeout_s, was_sent=call.has_connection)
            return Attempt(None, failure.error, call.took_ms, call.has_connection, detail=failure.detail)
        finally:
            if not call.has_response:
                call.abort()
        took_ms, head = call.took_ms, head_of(response.headers)
        try:
            response_body = await read_body(response)
        finally:
            call.abort_if_stuck()
        return Attempt(
            response.status,
            "",
            took_ms,
            call.has_connection,
            retry_after=head.retry_after,
            location=head.location,
            response_headers=head.headers,
            response_body=response_body,
            detail=redirect(head.location) if response.status in _REDIRECTS else "",
        )

    async def _call(
        self, call: Call, request: "_Outgoing", tls: ssl.SSLContext | bool
    ) -> aiohttp.ClientResponse:
        try:
            return await self._send(call, request, tls)
        except ConnectionLost:
            # A receiver that began to respond has read the request.
            if not call.reused or call.has_begun:
                raise
        return await self._send(call, request, tls)

    async def _send(
        self, call: Call, request: "_Outgoing", tls: ssl.SSLContext | bool
    ) -> aiohttp.ClientResponse:
        assert self._session is not None
        body = request.body
        response = await self._session.request(
            request.method,
            parsed(request.url),
            data=body if len(body) < _IN_ONE_PIECE_BYTES else io.BytesIO(body),
            headers=request.headers,
            # Connections are shared by it: one certificate's never carry another's requests.
            ssl=tls,
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
