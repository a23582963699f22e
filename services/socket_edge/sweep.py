"""The slow scan that makes a lost wakeup harmless: every connection once in SWEEP_S, a few at a time.

All at once would keep the event loop from everything else meanwhile.
"""

import asyncio
import itertools

from services.socket_edge.credential_watcher import CredentialWatcher
from services.socket_edge.registry import Registry

SWEEP_S = 60.0
_LOTS = 240


async def sweep(registry: Registry, credentials: CredentialWatcher) -> None:
    """Wakes every connection and has its credential checked, for ever."""
    for lot in itertools.cycle(range(_LOTS)):
        await asyncio.sleep(SWEEP_S / _LOTS)
        connections = [connection for connection in registry.all() if hash(connection.id) % _LOTS == lot]
        for connection in connections:
            connection.wake()
        credentials.check(connections)
