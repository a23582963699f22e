"""A connection ends when the secret that opened it does.

The end known at the handshake is one of the connection's deadlines. A rotation or a revocation changes it and
sends a wakeup. Wakeups may be lost, so the sweep and a restored subscription read every key again.
"""

import asyncio
import math
from collections.abc import Iterable
from dataclasses import dataclass

from services.socket_edge.held import HeldConnection
from services.socket_edge.liveness import Liveness
from shared.authentication import authenticate
from shared.clock import now_ms
from shared.model.api_keys import ApiKey, Scope, hash_of
from shared.model.errors import StoreUnavailable
from shared.store.api_keys import ApiKeys

_RETRY_S = 1.0


@dataclass(frozen=True, slots=True)
class Credential:
    """The secret that opened a connection: its API key, its hash, and when it ends.

    Without a hash it was a token, which is valid as long as the key.
    """

    api_key_id: str
    secret_hash: str | None = None
    until_ms: float = math.inf

    def valid_until_ms(self, key: ApiKey) -> float:
        """When it ends, by the current state of its key."""
        if self.secret_hash is not None:
            return key.valid_until_ms(self.secret_hash)
        return math.inf if key.expires_at_ms is None else key.expires_at_ms


async def authenticate_receiver(api_keys: ApiKeys, secret: str | None) -> tuple[ApiKey, Credential]:
    """The API key of a secret, which must have the scope `receive`.

    Raises Unauthenticated, MissingScope, StoreUnavailable.
    """
    key = await authenticate(api_keys, secret, scope=Scope.RECEIVE, now_ms=now_ms())
    secret_hash = hash_of(secret or "")
    return key, Credential(key.id, secret_hash, key.valid_until_ms(secret_hash))


class CredentialWatcher:
    """Reads API keys again, and moves the ends of the connections that they opened."""

    def __init__(self, api_keys: ApiKeys, liveness: Liveness) -> None:
        self._api_keys = api_keys
        self._liveness = liveness
        self._waiting: set[HeldConnection] = set()
        self._any_waiting = asyncio.Event()

    def check(self, connections: Iterable[HeldConnection]) -> None:
        """Has the keys of these connections read again, soon."""
        self._waiting.update(connections)
        self._any_waiting.set()

    async def run(self) -> None:
        """Reads keys for ever, many in one round trip."""
        while True:
            await self._any_waiting.wait()
            self._any_waiting.clear()
            waiting, self._waiting = self._waiting, set()
            try:
                await asyncio.gather(*map(self._check, waiting))
            except StoreUnavailable:
                # Those that ended would stay in memory until Redis is back.
                self.check(connection for connection in waiting if connection.is_held)
                await asyncio.sleep(_RETRY_S)

    async def _check(self, connection: HeldConnection) -> None:
        if (credential := connection.credential) is None:
            return
        key = await self._api_keys.find(credential.api_key_id)
        if not connection.is_held:
            # It ended meanwhile.
            return
        if key is None:
            connection.key_is_gone()
        else:
            connection.expires_at_ms = credential.valid_until_ms(key)
        self._liveness.watch(connection)
