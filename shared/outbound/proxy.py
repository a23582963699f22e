"""The egress proxy: it is asked for a tunnel to an address that was checked here, never for a name.

So the guard of addresses judges what the proxy connects to, and a name server cannot give the proxy another
answer than it gave us. Requests without TLS have a tunnel too: in a request by the absolute form, a proxy
replaces the Host header by what the request asks for, and the receiver would see its address there.
"""

import asyncio
import base64
import logging
import re
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

import aiohttp

from shared.model.addresses import AddressPolicy
from shared.outbound.names import Resolved
from shared.outbound.resolver import check_address

logger = logging.getLogger(__name__)

_DEFAULT_PORT = 80
_HEAD_LIMIT_BYTES = 8 * 1024
_HEAD_END = b"\r\n\r\n"
_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})[ \r]")
# For one address of the proxy: the next one must have its turn within the deadline of a call.
_CONNECT_S = 5.0
_WARN_EVERY_S = 60.0
# The proxy's answer is about itself or its rules: another address of the receiver changes nothing.
_FINAL_STATUSES = (401, 407)


class ProxyFailed(OSError):
    """No tunnel. `words` are for the owner of the webhook, and do not tell where the proxy is."""

    def __init__(self, words: str) -> None:
        super().__init__(words)
        self.words = words


@dataclass(frozen=True, slots=True)
class ProxyAddress:
    """Where the proxy listens, and what authorizes us. Never shown: the URL may hold a password."""

    host: str
    port: int
    authorization: str = field(default="", repr=False)

    @classmethod
    def of(cls, url: str) -> "ProxyAddress":
        """Raises ValueError for a URL that is none of a proxy."""
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname or parts.path not in ("", "/") or parts.query:
            raise ValueError("not the URL of a proxy")
        authorization = ""
        if parts.username is not None:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            authorization = "Basic " + base64.b64encode(pair.encode()).decode()
        return cls(parts.hostname, parts.port or _DEFAULT_PORT, authorization)


class Resolves(Protocol):
    """Names, as the proxy needs them."""

    async def resolve(self, host: str, *, account: str) -> Resolved:
        """The addresses of `host`, or the error."""


class EgressProxy:
    """Opens tunnels. The proxy's own address is the operator's: it is not checked."""

    def __init__(self, url: str, *, names: Resolves, policy: AddressPolicy) -> None:
        self._address = ProxyAddress.of(url)
        self._names = names
        self._policy = policy
        self._warned_s = -_WARN_EVERY_S

    async def tunnel(self, targets: Sequence[tuple[str, int]]) -> socket.socket:
        """A socket that leads to the first of these addresses that the proxy can reach.

        Raises AddressRefused, ProxyFailed.
        """
        for address, _ in targets:
            check_address(address, self._policy)
        failed = ProxyFailed("there is no address to ask the gateway's egress proxy for")
        for address, port in targets:
            try:
                return await self._tunnel(f"[{address}]:{port}" if ":" in address else f"{address}:{port}")
            except _Answered as answered:
                failed = ProxyFailed(_words(answered.status))
                if answered.status in _FINAL_STATUSES:
                    break
        self._warn(failed)
        raise failed

    async def _tunnel(self, authority: str) -> socket.socket:
        connection = await self._connect()
        try:
            await self._ask(connection, authority)
        except BaseException:
            connection.close()
            raise
        return connection

    async def _connect(self) -> socket.socket:
        """A connection to the proxy itself."""
        host = self._address.host
        known = Resolved(host, (host,)) if _is_address(host) else await self._names.resolve(host, account="")
        for address in known.addresses:
            connection = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
            try:
                connection.setblocking(False)
                async with asyncio.timeout(_CONNECT_S):
                    loop = asyncio.get_running_loop()
                    await loop.sock_connect(connection, (address, self._address.port))
            except OSError:
                connection.close()
            except BaseException:
                connection.close()
                raise
            else:
                return connection
        failed = ProxyFailed("the gateway's egress proxy cannot be reached: its operator has to mend that")
        self._warn(failed)
        raise failed

    async def _ask(self, connection: socket.socket, authority: str) -> None:
        """Raises _Answered unless the proxy opens the tunnel, ProxyFailed if it does not speak HTTP."""
        loop = asyncio.get_running_loop()
        lines = [f"CONNECT {authority} HTTP/1.1", f"Host: {authority}"]
        if self._address.authorization:
            lines.append(f"Proxy-Authorization: {self._address.authorization}")
        head = b""
        try:
            await loop.sock_sendall(connection, "\r\n".join([*lines, "", ""]).encode())
            while _HEAD_END not in head and len(head) < _HEAD_LIMIT_BYTES:
                if not (data := await loop.sock_recv(connection, _HEAD_LIMIT_BYTES)):
                    break
                head += data
        except OSError:
            head = b""
        status = _STATUS.match(head)
        if status is None or _HEAD_END not in head:
            raise _Answered(0)
        if status[1][:1] != b"2":
            raise _Answered(int(status[1]))
        if head.index(_HEAD_END) + len(_HEAD_END) < len(head):
            # A receiver of HTTP or TLS speaks second.
            raise _Answered(0)

    def _warn(self, failed: ProxyFailed) -> None:
        """Tells the operator, once a minute: a proxy that fails, fails for every call."""
        now_s = time.monotonic()
        if now_s - self._warned_s >= _WARN_EVERY_S:
            self._warned_s = now_s
            facts = {"proxy": f"{self._address.host}:{self._address.port}", "error": failed.words}
            logger.warning("egress-proxy.failed", extra={"facts": facts})


class _Answered(Exception):
    """The proxy's answer is no tunnel. `status` is 0 if it was none of HTTP."""

    def __init__(self, status: int) -> None:
        self.status = status


def _words(status: int) -> str:
    match status:
        case 0:
            return "the gateway's egress proxy did not respond by HTTP/1.1"
        case 401 | 407:
            return (
                f"the gateway's egress proxy wants other credentials ({status}): its operator has to set them"
            )
        case 403 | 405:
            return f"the gateway's egress proxy does not permit this address or port ({status})"
        case 502 | 503 | 504:
            return f"the gateway's egress proxy could not connect to the receiver ({status})"
        case _:
            return f"the gateway's egress proxy opened no connection ({status})"


def _is_address(host: str) -> bool:
    try:
        socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host)
    except OSError:
        return False
    return True


class ProxiedConnector(aiohttp.TCPConnector):
    """Connects through the proxy, to the addresses that the resolver has handed out."""

    def __init__(self, proxy: EgressProxy, **options: Any) -> None:
        super().__init__(**options)
        self._egress = proxy

    async def _wrap_create_connection(
        self,
        *args: Any,
        addr_infos: list[Any],
        req: aiohttp.ClientRequest,
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109
        client_error: type[Exception] = aiohttp.ClientConnectorError,
        **kwargs: Any,
    ) -> tuple[asyncio.Transport, Any]:
        """In place of aiohttp's own connection by TCP, which has no public hook that may wait."""
        try:
            connection = await self._egress.tunnel([info[4][:2] for info in addr_infos])
        except OSError as exc:
            raise client_error(req.connection_key, exc) from exc
        return await self._wrap_existing_connection(
            *args, req=req, timeout=timeout, client_error=client_error, sock=connection, **kwargs
        )
