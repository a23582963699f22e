"""What aiohttp connects to: addresses that were looked up before the call, each checked."""

import asyncio
import socket
import threading
from concurrent.futures import Future
from contextvars import ContextVar

from aiohttp.abc import AbstractResolver, ResolveResult

from shared.model.addresses import AddressPolicy
from shared.outbound.names import Resolved


class AddressRefused(OSError):
    """The address must not be called. An OSError, because aiohttp expects one."""

    def __init__(self, category: str) -> None:
        super().__init__(category)
        self.category = category


def check_address(address: str, policy: AddressPolicy) -> None:
    """Raises AddressRefused."""
    if category := policy.refuses(address):
        raise AddressRefused(category)


# What the call of this task may connect to. aiohttp passes its resolver nothing but the name.
RESOLVED: ContextVar[Resolved] = ContextVar("RESOLVED")


class VettingResolver(AbstractResolver):
    """Hands out the addresses in `RESOLVED`. One refused address among good ones refuses the name."""

    def __init__(self, policy: AddressPolicy) -> None:
        self._policy = policy

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        resolved = RESOLVED.get()
        if resolved.error or not resolved.addresses or resolved.host != host:
            raise OSError(resolved.error or "another name was resolved")
        for address in resolved.addresses:
            check_address(address, self._policy)
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST,
            )
            for address in resolved.addresses
        ]

    async def close(self) -> None:
        """Nothing to close."""


async def system_lookup(host: str) -> list[str]:
    """The addresses of `host`, by the system's resolver in a thread of its own. Raises OSError.

    A name server that does not respond blocks a thread for many seconds. In the event loop's own pool (four
    threads with uvloop) a few dead names would stop all other lookups, and hold up the end of the process.
    """
    loop = asyncio.get_running_loop()
    lookup: Future[list[str]] = Future()
    # A cancelled caller must not cancel it: the thread still sets a result.
    lookup.set_running_or_notify_cancel()

    def work() -> None:
        try:
            lookup.set_result(_system_addresses(host))
        except Exception as exc:
            lookup.set_exception(exc)

    try:
        threading.Thread(target=work, name="resolver", daemon=True).start()
    except RuntimeError:
        raise OSError("no thread can be started") from None
    return await asyncio.wrap_future(lookup, loop=loop)


def _system_addresses(host: str) -> list[str]:
    # As bytes: Python encodes text by IDNA 2003, which refuses newer names.
    entries = socket.getaddrinfo(host.encode("ascii"), None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in entries))
