"""Resolving names: one lookup, and a check of every address that it returns."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future

from aiohttp.abc import AbstractResolver, ResolveResult

from shared.model.addresses import AddressPolicy

Lookup = Callable[[str], Awaitable[list[str]]]

_CONCURRENT_LOOKUPS = 64


class AddressRefused(OSError):
    """The address must not be called. An OSError, because aiohttp expects one."""


def check_address(address: str, policy: AddressPolicy) -> None:
    """Raises AddressRefused."""
    if reason := policy.refuses(address):
        raise AddressRefused(reason)


class VettingResolver(AbstractResolver):
    """Resolves a name once. One refused address among good ones refuses the name."""

    def __init__(self, lookup: Lookup, policy: AddressPolicy) -> None:
        self._lookup = lookup
        self._policy = policy

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        addresses = await self._lookup(host)
        if not addresses:
            raise OSError("no address")
        for address in addresses:
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
            for address in addresses
        ]

    async def close(self) -> None:
        """Nothing to close."""


class SystemResolver:
    """The system's resolver, in threads of its own.

    A name server that does not respond blocks a thread for many seconds. In the event loop's own pool (four
    threads with uvloop) a few dead names would stop all other lookups, and hold up the end of the process.
    """

    def __init__(self) -> None:
        self._threads = asyncio.Semaphore(_CONCURRENT_LOOKUPS)

    async def __call__(self, host: str) -> list[str]:
        """The addresses of `host`. Raises OSError."""
        await self._threads.acquire()
        loop = asyncio.get_running_loop()
        lookup: Future[list[str]] = Future()
        # A cancelled caller must not cancel it: the thread still sets a result.
        lookup.set_running_or_notify_cancel()

        def work() -> None:
            try:
                lookup.set_result(_system_addresses(host))
            except Exception as exc:
                lookup.set_exception(exc)
            # The event loop may be closed by now.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._threads.release)

        try:
            threading.Thread(target=work, name="resolver", daemon=True).start()
        except RuntimeError:
            self._threads.release()
            raise OSError("no thread can be started") from None
        return await asyncio.wrap_future(lookup)


def _system_addresses(host: str) -> list[str]:
    # As bytes: Python encodes text by IDNA 2003, which refuses newer names.
    entries = socket.getaddrinfo(host.encode("ascii"), None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in entries))
