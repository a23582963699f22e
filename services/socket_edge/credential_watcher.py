"""A connection ends when the secret that opened it does.

The end known at the handshake is one of the connection's deadlines. A rotation or a revocation changes it and
sends a wakeup. Wakeups may be lost, so each edge also reads the version of all credentials twice a second.
When it has changed, whatever the account, the edge reads the key of every connection again. It does so after
a restored subscription too, and the sweep does it in lots.

This costs two HGETs a second and edge. After a change it costs one HMGET for each API key held, however many
connections the key has: for 10,000 keys 0.15 s of the edge's CPU and 0.03 s of Redis', in steps of 100 keys,
at most twice a second. A wakeup's key is read before those.
"""

import asyncio
import contextlib
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from starlette.types import Scope

from services.socket_edge.held import HeldConnection, in_turns, now_s
from services.socket_edge.liveness import Liveness
from shared.authentication import require_scope
from shared.clock import now_ms
from shared.model.api_keys import ApiKey, Principal, hash_of
from shared.model.api_keys import Scope as KeyScope
from shared.model.errors import StoreUnavailable, Unauthenticated
from shared.store.api_keys import ApiKeys

if TYPE_CHECKING:
    from services.socket_edge.edge import Edge

_RETRY_S = 1.0
_VERSION_S = 0.5
# So many keys are read in one round trip: a few milliseconds of the event loop.
_KEYS_PER_STEP = 100


@dataclass(frozen=True, slots=True)
class Credential:
    """The secret that opened a connection, or minted the token that did: its API key, its hash, its end.

    `changes` are those that the watcher had heard of before it was read; None if that is unknown.
    """

    api_key_id: str
    account_id: str
    secret_hash: str
    until_ms: float = math.inf
    changes: int | None = None

    @classmethod
    def of(cls, principal: Principal) -> Self:
        return cls(principal.api_key_id, principal.account_id, principal.secret_hash, principal.until_ms)


async def authenticate_receiver(edge: "Edge", scope: Scope, secret: str | None) -> tuple[ApiKey, Credential]:
    """The API key of a secret, which must have the scope `receive`, in a request or handshake.

    Raises Unauthenticated, MissingScope, StoreUnavailable; Problem (429) when its address failed too often.
    """
    key, credential = await authenticate(edge, scope, secret)
    require_scope(key.scopes, KeyScope.RECEIVE)
    return key, credential


async def authenticate(edge: "Edge", scope: Scope, secret: str | None) -> tuple[ApiKey, Credential]:
    """The same with any scope. Raises Unauthenticated, StoreUnavailable, Problem (429)."""
    api_keys, address = edge.stores.api_keys, edge.limits.address_of(scope)
    changes = edge.credentials.changes
    key = await edge.look_up(secret or "", address, lambda: api_keys.authenticate(secret, now_ms=now_ms()))
    if key is None:
        raise Unauthenticated
    secret_hash = hash_of(secret or "")
    return key, Credential(key.id, key.account_id, secret_hash, key.valid_until_ms(secret_hash), changes)


class CredentialWatcher:
    """Reads API keys again, and moves the ends of the connections that they opened."""

    def __init__(
        self, api_keys: ApiKeys, liveness: Liveness, all_held: Callable[[], Iterable[HeldConnection]]
    ) -> None:
        self._api_keys = api_keys
        self._liveness = liveness
        self._all_held = all_held
        # By API key; the key that was added last is read first.
        self._waiting: dict[str, dict[HeldConnection, None]] = {}
        self._any_waiting = asyncio.Event()
        self.changes = 0
        """How often the edge has heard that a credential changed, or may have missed it."""

    def check_new(self, connection: HeldConnection, credential: Credential) -> None:
        """Has the key of a new connection read again, if it may have changed since it was read.

        Until now nothing reached the connection. A change without a message shows in the next version.
        """
        if credential.changes != self.changes:
            self.check([connection])

    def on_change(self, connections: Iterable[HeldConnection]) -> None:
        """Credentials have changed, or may have: has the keys of these connections read again."""
        self.changes += 1
        self.check(connections)

    def check(self, connections: Iterable[HeldConnection]) -> None:
        """Has the keys of these connections read again, soon, and before those that wait already."""
        waiting = self._waiting
        for connection in connections:
            if connection.credential is not None:
                api_key_id = connection.credential.api_key_id
                its_connections = waiting.pop(api_key_id, {})
                its_connections[connection] = None
                waiting[api_key_id] = its_connections
        if waiting:
            self._any_waiting.set()

    async def run(self) -> None:
        """Reads keys for ever, many in one round trip."""
        while True:
            await self._any_waiting.wait()
            if not await self._check_some():
                await asyncio.sleep(_RETRY_S)

    async def _check_some(self) -> bool:
        """Reads some of the keys that wait; False when none of them could be read.

        Not a part of `run`, whose variables would keep connections in memory while it waits.
        """
        step = dict(self._waiting.popitem() for _ in range(min(_KEYS_PER_STEP, len(self._waiting))))
        if not self._waiting:
            self._any_waiting.clear()
        checks = (self._check(*of_key) for of_key in step.items())
        errors = await asyncio.gather(*checks, return_exceptions=True)
        unread = [key for key, error in zip(step, errors, strict=True) if _is_unavailable(error)]
        self._read_last({key: step[key] for key in unread})
        return len(unread) < len(step)

    def _read_last(self, unread: dict[str, dict[HeldConnection, None]]) -> None:
        """Puts keys back behind all others: those of a dead primary must not hold up the rest."""
        again = dict[str, dict[HeldConnection, None]]()
        for api_key_id, connections in unread.items():
            # Those that ended would stay in memory until Redis is back.
            held = {each: None for each in connections if each.is_held}
            if held := held | self._waiting.pop(api_key_id, {}):
                again[api_key_id] = held
        self._waiting = again | self._waiting
        if self._waiting:
            self._any_waiting.set()

    async def watch_version(self) -> None:
        """Has the keys of all connections read again, whenever any credential has changed.

        While Redis is away it reads nothing; the first version that it reads then is compared with the last.
        """
        last: bytes | None = None
        while True:
            with contextlib.suppress(StoreUnavailable):
                version = await self._api_keys.credentials_version()
                if version != last:
                    self.on_change(self._all_held())
                last = version
            await asyncio.sleep(_VERSION_S)

    async def _check(self, api_key_id: str, connections: Iterable[HeldConnection]) -> None:
        key = await self._api_keys.find(api_key_id)
        # Some may have ended meanwhile, or authenticated with another key.
        async for connection in in_turns(connections):
            credential = connection.credential
            if credential is None or credential.api_key_id != api_key_id:
                continue
            if key is None:
                connection.key_is_gone()
            else:
                connection.expires_at_ms = key.valid_until_ms(credential.secret_hash)
            if connection.expires_at_ms <= now_ms():
                # Not at the next tick, which may be a second later.
                await self._liveness.check(connection, now_s())
            else:
                self._liveness.watch(connection)


def _is_unavailable(error: BaseException | None) -> bool:
    """Whether Redis could not be read. Raises any other error."""
    if error is not None and not isinstance(error, StoreUnavailable):
        raise error
    return error is not None
