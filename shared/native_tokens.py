"""Native tokens: short-lived, signed by the account's own back end or by us, for clients without an API key.

They have nothing in common with the tokens of `shared/tokens.py`, which stand for an API key in one dialect:
another audience, other keys, other doors. A key and a cut-off count from the moment at which they are in
Redis, so both are read for each token; what is kept in memory is only the parsed form of a key.
"""

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import jwt
import orjson
from cryptography.exceptions import UnsupportedAlgorithm

from shared.model.errors import TokenRefused
from shared.model.grants import Grant
from shared.model.token_keys import Algorithm, TokenKey
from shared.store.token_keys import TokenKeys
from shared.wire.native_tokens import AUDIENCE, grant_in, head_of

Found: TypeAlias = Grant | TokenRefused | None
CountedLookUp: TypeAlias = Callable[[Callable[[], Awaitable[Found]]], Awaitable[Found]]

# A parsed key has a few KB.
_KEPT = 1000


@dataclass(frozen=True, slots=True)
class Claims:
    """What a token that we mint says; None leaves a claim out."""

    subject: str
    read: Sequence[str] | None = None
    publish: Sequence[str] | None = None
    channels: Sequence[str] | None = None


class NativeTokens:
    """Verifies and mints tokens."""

    def __init__(self, keys: TokenKeys) -> None:
        self.keys = keys
        self._jws = jwt.PyJWS()
        self._parsed: OrderedDict[tuple[Algorithm, str], Any] = OrderedDict()

    async def verify(self, token: str, *, now_ms: int) -> Grant:
        """What the token allows now. Raises TokenRefused, StoreUnavailable."""
        head = head_of(token)
        key = await self.keys.find(head.kid)
        if key is None:
            raise TokenRefused("its key is unknown, or was deleted")
        if head.algorithm != key.algorithm:
            raise TokenRefused(f"its alg is not {key.algorithm}, that of its key")
        grant = grant_in(self._payload(token, key), kid=key.kid, now_ms=now_ms)
        if grant.is_cut_off(await self.keys.cut_off_ms(grant.account_id, grant.subject, now_ms=now_ms)):
            raise TokenRefused("its subject was signed out after it was issued", is_genuine=True)
        return grant

    async def look_up(self, token: str, count: CountedLookUp, *, now_ms: int) -> Grant:
        """The same. `count` awaits what reads the token, and counts a None of it against the address.

        Only what may be a guess is counted: clients behind one address show tokens that have expired.
        """
        refusals: list[TokenRefused] = []

        async def find() -> Found:
            try:
                return await self.verify(token, now_ms=now_ms)
            except TokenRefused as refused:
                refusals.append(refused)
                return refused if refused.is_genuine else None

        found = await count(find)
        if isinstance(found, Grant):
            return found
        raise refusals[0]

    async def mint(self, account_id: str, claims: Claims, *, lifetime_s: int, now_ms: int) -> tuple[str, int]:
        """A token that we have signed, and when it ends in ms. Raises NoSuchAccount, StoreUnavailable."""
        key = await self.keys.server_key(account_id, now_ms=now_ms)
        cut_off_ms = await self.keys.cut_off_ms(account_id, claims.subject, now_ms=now_ms)
        # Our clock may be some ms behind Redis': the token would be older than a cut-off from before it.
        issued_ms = now_ms if cut_off_ms is None else max(now_ms, int(cut_off_ms) + 1)
        until_s = issued_ms // 1000 + lifetime_s
        named = {"read": claims.read, "publish": claims.publish, "channels": claims.channels}
        payload = {
            "aud": AUDIENCE,
            "sub": claims.subject,
            "iat": issued_ms / 1000,
            "exp": until_s,
            **{name: value for name, value in named.items() if value is not None},
        }
        token = self._jws.encode(
            orjson.dumps(payload), self._parsed_key(key), algorithm=key.algorithm, headers={"kid": key.kid}
        )
        return token, until_s * 1000

    def _payload(self, token: str, key: TokenKey) -> bytes:
        """What the key has signed. Raises TokenRefused."""
        try:
            opened = self._jws.decode_complete(token, self._parsed_key(key), algorithms=[key.algorithm])
        except (jwt.InvalidTokenError, ValueError, RecursionError):
            raise TokenRefused("its signature is not that of its key") from None
        payload: bytes = opened["payload"]
        return payload

    def _parsed_key(self, key: TokenKey) -> Any:
        """The key in the form of its algorithm. The one that was used longest ago gives way."""
        known = (key.algorithm, key.material)
        if (parsed := self._parsed.get(known)) is None:
            try:
                parsed = self._jws.get_algorithm_by_name(key.algorithm).prepare_key(key.material)
            except (jwt.PyJWTError, ValueError, TypeError, UnsupportedAlgorithm):
                raise TokenRefused("its key cannot be used") from None
            self._parsed[known] = parsed
            if len(self._parsed) > _KEPT:
                self._parsed.popitem(last=False)
        self._parsed.move_to_end(known)
        return parsed
