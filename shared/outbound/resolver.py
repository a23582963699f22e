"""From a name to addresses: one look-up, and every address of its answer judged before it is used."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Awaitable, Callable

from aiohttp.abc import AbstractResolver, ResolveResult

from shared.model.addresses import AddressPolicy

Lookup = Callable[[str], Awaitable[list[str]]]

_LOOK_UPS_AT_ONCE = 64


class AddressRefused(OSError):
    """The look-up led to an address that must not be called. An OSError, so that aiohttp treats it as one."""


def judge(address: str, policy: AddressPolicy) -> None:
    if word := policy.refuses(address):
        raise AddressRefused(word)


class VettingResolver(AbstractResolver):
    """Looks a name up once, and judges every address of the answer: one bad among good ones refuses all."""

    def __init__(self, lookup: Lookup, policy: AddressPolicy) -> None:
        self._look_up = lookup
        self._policy = policy

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = await self._look_up(host)
        if not found:
            raise OSError("no address")
        for address in found:
            judge(address, self._policy)
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST,
            )
            for address in found
        ]

    async def close(self) -> None:
        """Nothing is held."""


class SystemResolver:
    """The system's look-up, in threads of its own that no other work waits for, nor the end of the process.

    A name server that does not answer holds a thread for many seconds. asyncio's own threads are few (uvloop
    has four), and a few dead names would stop everybody's look-ups.
    """

    def __init__(self) -> None:
        self._threads = asyncio.Semaphore(_LOOK_UPS_AT_ONCE)

    async def __call__(self, host: str) -> list[str]:
        """The addresses of `host`. Raises OSError."""
        await self._threads.acquire()
        loop = asyncio.get_running_loop()
        found: asyncio.Future[list[str]] = loop.create_future()

        def tell(addresses: list[str], error: OSError | None) -> None:
            self._threads.release()
            if found.done():
                return
            if error is None:
                found.set_result(addresses)
            else:
                found.set_exception(error)

        def work() -> None:
            addresses: list[str] = []
            error: OSError | None = None
            try:
                addresses = _system_addresses(host)
            except (OSError, UnicodeError) as seen:
                error = seen if isinstance(seen, OSError) else OSError("not a name")
            # The loop may be gone by now, and nobody waits.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(tell, addresses, error)

        try:
            threading.Thread(target=work, name="look-up", daemon=True).start()
        except RuntimeError:
            self._threads.release()
            raise OSError("no thread can be started") from None
        return await found


def _system_addresses(host: str) -> list[str]:
    # As bytes: for text Python has a codec of its own, that knows only the names of 2003.
    answers = socket.getaddrinfo(host.encode("ascii"), None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(where[0]) for *_, where in answers))
