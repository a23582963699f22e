"""The client for customers' URLs: one request, whose outcome is the status line of the response.

A receiver must not lead it into our own network, hold it longer than one deadline, or fill its memory. So it
checks every address between resolving and connecting, starts the deadline before resolving, and keeps no more
than the beginning of a response. A caller with few places resolves first (`resolve`): no place waits for a
name server.
"""

import asyncio
import logging
import socket
from collections.abc import Container, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

import aiohttp
from aiohttp.helpers import is_ip_address

from shared import telemetry
from shared.model.addresses import AddressPolicy
from shared.model.client_certificates import ClientCertificate
from shared.model.webhook_answers import redirect
from shared.outbound.attempt import OK_OR_NO_CONTENT, head_of
from shared.outbound.attempt import Attempt as Attempt
from shared.outbound.calls import BadAnswer, Call, ConnectionLost, Prepared, Response, prepared
from shared.outbound.certificates import CertificateUnusable, Contexts, usual_context
from shared.outbound.deadline import Deadline
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

_IDLE_S = 15
# Webhooks whose requests are prepared: some have up to 8 KiB of headers.
_PREPARED = 1024
_REDIRECTS = (301, 302, 303, 307, 308)
_NOTHING: Mapping[str, str] = MappingProxyType({})


# Not frozen, as all that is made for each request: that takes three times as long.
@dataclass(slots=True)
class _Outgoing:
    method: str
    url: str
    headers: Mapping[str, str]
    varying: Mapping[str, str]
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
        self._pool: aiohttp.TCPConnector | None = None
        self._prepared = lru_cache(maxsize=_PREPARED)(_prepared)

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
        # Kept: on Python 3.11 it is a system call to ask for it.
        self._loop = asyncio.get_running_loop()
        self._pool = self._connector()
        # aiohttp has no parameter for it.
        vars(self._pool)["_factory"] = partial(HeadReader, loop=self._loop)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._pool is not None
        await self._pool.close()
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
        varying: Mapping[str, str] = _NOTHING,
        account: str = "",
        resolved: Resolved | None = None,
        timeout_s: float | None = None,
        success: Container[int] = OK_OR_NO_CONTENT,
        certificate: ClientCertificate | None = None,
    ) -> Attempt:
        """Calls `url` once, follows no redirect, and raises nothing. `timeout_s` replaces the usual deadline.

        `varying` are headers of this request alone: the others are prepared once for a URL. None is in both.
        A status of `success` accepts it. A receiver that asks for a client certificate gets `certificate`, in
        place of the usual one.

        It calls a second time only if a connection kept from an earlier call turns out to be dead. Without
        `resolved` it looks the host up for `account` first, within the same deadline.
        """
        request = _Outgoing(method, url, headers, varying, body, certificate)
        limit_s = self._timeout_s if timeout_s is None else timeout_s
        attempt = await self._attempt(request, account, resolved, limit_s, success)
        telemetry.webhook_request_s.record(attempt.took_ms / 1000, {"outcome": attempt.outcome})
        if attempt.error:
            facts = {"origin": origin_of(url), "error": attempt.error}
            logger.debug("callback.failed", extra={"facts": facts})
        return attempt

    async def _attempt(
        self,
        request: _Outgoing,
        account: str,
        resolved: Resolved | None,
        timeout_s: float,
        success: Container[int],
    ) -> Attempt:
        assert self._pool is not None
        call, deadline = Call(self._pool), Deadline(timeout_s, self._loop)
        try:
            with deadline:
                RESOLVED.set(resolved or await self.resolve(request.url, account=account))
                response = await self._call(call, await self._prepare(request, account), request)
        except (aiohttp.ClientError, CertificateUnusable, OSError, ValueError) as exc:
            if isinstance(exc, BadAnswer) and call.status:
                # The parser refused what follows the status line: the status decides, the connection goes.
                return Attempt(call.status, "", call.took_ms, call.has_connection, success=success)
            failure = failure_of(exc, request.url, timeout_s=timeout_s, was_sent=call.has_connection)
            return Attempt(
                None, failure.error, call.took_ms, call.has_connection, detail=failure.detail, success=success
            )
        finally:
            if not call.has_response:
                call.abort()
        took_ms, head = call.took_ms, head_of(response.headers)
        return Attempt(
            response.status,
            "",
            took_ms,
            call.has_connection,
            retry_after=head.retry_after,
            location=head.location,
            response_headers=head.headers,
            response_body=await call.read_body(response),
            detail=redirect(head.location) if response.status in _REDIRECTS else "",
            success=success,
        )

    async def _prepare(self, request: _Outgoing, account: str) -> Prepared:
        """Raises CertificateUnusable, ClientError, ValueError."""
        headers = tuple(request.headers.items())
        if request.certificate is None or parsed(request.url).scheme != "https":
            return self._prepared(request.method, request.url, headers)
        # Connections are shared by it: one certificate's never carry another's requests.
        tls = await self._contexts.of(request.certificate, account=account)
        return prepared(request.method, parsed(request.url), headers, tls=tls)

    async def _call(self, call: Call, request: Prepared, outgoing: _Outgoing) -> Response:
        try:
            return await call.make(request, outgoing.varying, outgoing.body)
        except ConnectionLost:
            # A receiver that began to respond has read the request.
            if not call.reused or call.has_begun:
                raise
            call.abort()
        return await call.make(request, outgoing.varying, outgoing.body)

    def _checked_socket(self, address: Any) -> socket.socket:
        """Checks the address that aiohttp is about to connect to: a URL may name one without resolving."""
        family, kind, protocol, _, sockaddr = address
        check_address(sockaddr[0], self._policy)
        return socket.socket(family=family, type=kind, proto=protocol)


def _prepared(method: str, url: str, headers: tuple[tuple[str, str], ...]) -> Prepared:
    return prepared(method, parsed(url), headers)
