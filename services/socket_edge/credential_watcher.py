"""A socket lives as long as the secret that it proved itself with.

What is known at the handshake stands in the line of deadlines. A rotation may change it later: a wakeup tells,
and as wakeups may be lost, every socket's key is read again once a minute, and when Redis was away.
"""

import asyncio
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from services.socket_edge.deadlines import Deadlines
from shared.model.api_keys import ApiKey
from shared.model.errors import StoreUnavailable
from shared.store.api_keys import ApiKeys

T = TypeVar("T")

_RETRY_S = 1.0


@dataclass(frozen=True, slots=True)
class Credential:
    """By which secret of which API key a socket was opened, and until when that is valid.

    Without a secret it was opened by something made with one, and lives as long as the key.
    """

    api_key_id: str
    secret_hash: str | None
    until_ms: float


class CredentialWatcher(Generic[T]):
    """The credentials of all sockets of an edge."""

    def __init__(self, api_keys: ApiKeys, *, ends_when_gone: bool = False) -> None:
        """`ends_when_gone`: a key that was revoked ends its sockets; else the look at their channel does."""
        self._api_keys = api_keys
        self._ends_when_gone = ends_when_gone
        self._credentials: dict[T, Credential] = {}
        self._deadlines: Deadlines[T] = Deadlines()
        self._doubted: set[T] = set()
        self._any_doubted = asyncio.Event()

    def keep(self, socket: T, credential: Credential) -> None:
        self._credentials[socket] = credential
        self._deadlines.set(socket, until_ms=credential.until_ms)

    def forget(self, socket: T) -> None:
        self._credentials.pop(socket, None)
        self._doubted.discard(socket)
        self._deadlines.forget(socket)

    def over(self, *, now_ms: int) -> list[T]:
        """Sockets whose credential has ended; each is told once."""
        return self._deadlines.over(now_ms=now_ms)

    def doubt(self, sockets: Iterable[T]) -> None:
        """Their keys may have changed: look again, soon."""
        self._doubted.update(sockets)
        if self._doubted:
            self._any_doubted.set()

    def doubt_key(self, api_key_id: str) -> None:
        """Whatever was opened with this API key."""
        self.doubt(
            socket for socket, credential in self._credentials.items() if credential.api_key_id == api_key_id
        )

    async def look_again(self) -> None:
        """Reads the keys of doubted sockets again, many in one pipeline, for ever."""
        while True:
            await self._any_doubted.wait()
            self._any_doubted.clear()
            await self._look_at_doubted()

    async def _look_at_doubted(self) -> None:
        doubted, self._doubted = self._doubted, set()
        try:
            await asyncio.gather(*map(self._look_at, doubted))
        except StoreUnavailable:
            self.doubt(socket for socket in doubted if socket in self._credentials)
            await asyncio.sleep(_RETRY_S)

    async def _look_at(self, socket: T) -> None:
        credential = self._credentials.get(socket)
        key = await self._api_keys.find(credential.api_key_id) if credential else None
        # The socket may have gone meanwhile.
        if credential is None or socket not in self._credentials:
            return
        if key is not None:
            self._deadlines.set(socket, until_ms=_until_ms(key, credential))
        elif self._ends_when_gone:
            self._deadlines.set(socket, until_ms=0)


def _until_ms(key: ApiKey, credential: Credential) -> float:
    if credential.secret_hash is not None:
        return key.valid_until_ms(credential.secret_hash)
    return math.inf if key.expires_at_ms is None else key.expires_at_ms
