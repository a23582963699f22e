"""A connection ends when the secret that opened it does.

The end known at the handshake is one of the connection's deadlines. A rotation or a revocation changes it and
sends a wakeup. Wakeups may be lost, so the sweep and a restored subscription read every key again.
"""

import asyncio
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from services.socket_edge.held import HeldConnection
from services.socket_edge.liveness import Liveness
from shared.authentication import authenticate
from shared.clock import now_ms
from shared.model.api_keys import ApiKey, Principal, Scope, hash_of
from shared.model.errors import StoreUnavailable
from shared.store.api_keys import ApiKeys

_RETRY_S = 1.0


@dataclass(frozen=True, slots=True)
class Credential:
    """The secret that opened a connection, or minted the token that did: its API key, its hash, its end."""

    api_key_id: str
    secret_hash: str
    until_ms: float = math.inf

    @classmethod
    def of(cls, principal: Principal) -> Self:
        return cls(principal.api_key_id, principal.secret_hash, principal.until_ms)


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
            connection.expires_at_ms = key.valid_until_ms(credential.secret_hash)
        self._liveness.watch(connection)
