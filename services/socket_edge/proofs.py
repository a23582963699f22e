"""A socket lives as long as the secret that it proved itself with.

What is known at the handshake stands in the line of deadlines. A rotation may change it later: a nudge tells,
and as nudges may be lost, every socket's key is read again once a minute, and when Redis was away.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from services.socket_edge.deadlines import Deadlines
from shared.model.errors import StoreUnavailable
from shared.store.api_keys import ApiKeys

T = TypeVar("T")

_RETRY_S = 1.0


@dataclass(frozen=True, slots=True)
class Proof:
    """By which secret of which API key a socket was opened, and until when that is valid."""

    api_key_id: str
    secret_hash: str
    until_ms: float


class Proofs(Generic[T]):
    """The proofs of all sockets of an edge."""

    def __init__(self, api_keys: ApiKeys) -> None:
        self._api_keys = api_keys
        self._proofs: dict[T, Proof] = {}
        self._deadlines: Deadlines[T] = Deadlines()
        self._doubted: set[T] = set()
        self._any_doubted = asyncio.Event()

    def keep(self, socket: T, proof: Proof) -> None:
        self._proofs[socket] = proof
        self._deadlines.set(socket, until_ms=proof.until_ms)

    def forget(self, socket: T) -> None:
        self._proofs.pop(socket, None)
        self._doubted.discard(socket)
        self._deadlines.forget(socket)

    def over(self, *, now_ms: int) -> list[T]:
        """Sockets whose proof has ended; each is told once."""
        return self._deadlines.over(now_ms=now_ms)

    def doubt(self, sockets: Iterable[T]) -> None:
        """Their keys may have changed: look again, soon."""
        self._doubted.update(sockets)
        if self._doubted:
            self._any_doubted.set()

    async def look_again(self) -> None:
        """Reads the keys of doubted sockets again, many in one pipeline, for ever."""
        while True:
            await self._any_doubted.wait()
            self._any_doubted.clear()
            doubted, self._doubted = self._doubted, set()
            try:
                await asyncio.gather(*map(self._look_at, doubted))
            except StoreUnavailable:
                self.doubt(socket for socket in doubted if socket in self._proofs)
                await asyncio.sleep(_RETRY_S)

    async def _look_at(self, socket: T) -> None:
        proof = self._proofs.get(socket)
        key = await self._api_keys.find(proof.api_key_id) if proof else None
        # Of a key that was revoked the look at the channel tells. The socket may have gone meanwhile.
        if proof is not None and key is not None and socket in self._proofs:
            self._deadlines.set(socket, until_ms=key.valid_until_ms(proof.secret_hash))
