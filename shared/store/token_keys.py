"""The keys that verify an account's tokens, and the cut-offs of its subjects.

Neither is cached: a token is refused from the moment at which its key is gone, or its subject is cut off.
Connections that are open learn it by notes, which each edge reads twice a second.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import orjson

from shared.model.errors import NoSuchAccount, TooManyCutOffs, TooManyTokenKeys
from shared.model.grants import LONGEST_S, SKEW_S
from shared.model.token_keys import (
    MOST_KEYS,
    Algorithm,
    Origin,
    TokenKey,
    account_in,
    new_key_secret,
    new_kid,
)
from shared.redis.pipeline import RedisCommands
from shared.store import keyspace, token_names
from shared.store.token_names import subject_hash

MOST_CUT_OFFS = 10_000
# A token that was issued at the cut-off, by a clock that is ahead, has expired then.
CUT_OFF_KEPT_MS = (LONGEST_S + 2 * SKEW_S) * 1000
_NOTES_KEPT_MS = 120_000
# A replica that took over may have a clock that is behind.
_NOTES_AGAIN_MS = 60_000
_MOST_NOTES = 1000


@dataclass(frozen=True, slots=True)
class Standing:
    """What Redis says of a token that was valid once: is its key there, and when was its subject cut off?"""

    has_key: bool
    cut_off_ms: float | None


class TokenKeys:
    """Token keys by account and id. Raises StoreUnavailable."""

    def __init__(self, redis: RedisCommands) -> None:
        self._redis = redis

    async def add(self, account_id: str, algorithm: Algorithm, material: str, *, now_ms: int) -> TokenKey:
        """Raises NoSuchAccount, TooManyTokenKeys."""
        return await self._add(account_id, TokenKey(new_kid(account_id), algorithm, material, now_ms))

    async def server_key(self, account_id: str, *, now_ms: int) -> TokenKey:
        """The key that signs what this server mints for the account; made if there is none.

        Raises NoSuchAccount.
        """
        found = await self._redis.command("HGET", keyspace.token_keys(account_id), "server")
        if found is not None and (key := await self.find(found.decode())) is not None:
            return key
        kid, secret = new_kid(account_id), new_key_secret()
        return await self._add(account_id, TokenKey(kid, Algorithm.HS256, secret, now_ms, Origin.SERVER))

    async def of_account(self, account_id: str) -> list[TokenKey]:
        """All of them, the oldest first."""
        stored: Sequence[bytes] = await self._redis.command("HGETALL", keyspace.token_keys(account_id))
        pairs = zip(stored[::2], stored[1::2], strict=True)
        keys = [_key(kid.decode(), record) for kid, record in pairs if kid != b"server"]
        return sorted(keys, key=lambda key: (key.created_at_ms, key.kid))

    async def find(self, kid: str) -> TokenKey | None:
        """The key with this id; None when it is gone, or the text is no such id."""
        if (account_id := account_in(kid)) is None:
            return None
        record = await self._redis.command("HGET", keyspace.token_keys(account_id), kid)
        return None if record is None else _key(kid, record)

    async def drop(self, kid: str) -> bool:
        """Ends a key; its connections end within a second. False when it was gone; edges notice it again."""
        account_id = account_in(kid)
        assert account_id is not None, "the caller has checked the id"
        dropped = await self._redis.script("token_key_drop", [keyspace.token_keys(account_id)], kid)
        await self._note(account_id)
        return bool(dropped)

    async def drop_all(self, account_id: str) -> None:
        """Ends all keys of an account that is being deleted.

        If this process dies before the note, what they opened ends with the edges' next sweep.
        """
        if await self._redis.command("UNLINK", keyspace.token_keys(account_id)):
            await self._note(account_id)

    async def cut_off(self, account_id: str, subject: str) -> None:
        """Refuses the subject's tokens that were issued until now. Raises NoSuchAccount, TooManyCutOffs."""
        names = [keyspace.account(account_id), keyspace.token_cut_offs(account_id)]
        status, *fields = await self._redis.script(
            "token_cut_off", names, subject_hash(subject), CUT_OFF_KEPT_MS, MOST_CUT_OFFS
        )
        if status == b"absent":
            raise NoSuchAccount
        if status == b"full":
            raise TooManyCutOffs(until_ms=int(fields[0]))
        await self._note(account_id)

    async def cut_off_ms(self, account_id: str, subject: str, *, now_ms: int) -> float | None:
        """When the subject was cut off; None if it was not, or every token from before that has expired."""
        name = keyspace.token_cut_offs(account_id)
        return _still(await self._redis.command("ZSCORE", name, subject_hash(subject)), now_ms)

    async def standings(
        self, account_id: str, tokens: Sequence[tuple[str, str]], *, now_ms: int
    ) -> list[Standing]:
        """How some tokens of one account stand now, each given by key and `subject_hash`."""
        kids, subjects = zip(*tokens, strict=True)
        records, scores = await asyncio.gather(
            self._redis.command("HMGET", keyspace.token_keys(account_id), *kids),
            self._redis.command("ZMSCORE", keyspace.token_cut_offs(account_id), *subjects),
        )
        return [
            Standing(record is not None, _still(score, now_ms))
            for record, score in zip(records, scores, strict=True)
        ]

    async def changes(self, since_ms: int, *, now_ms: int) -> dict[str, float] | None:
        """The accounts with a change since this time, and some with an earlier one, by the last.

        None when there are too many, or this is too long ago: any account may have changed.
        """
        oldest_ms = since_ms - _NOTES_AGAIN_MS
        if oldest_ms < now_ms - _NOTES_KEPT_MS:
            return None
        found: Sequence[bytes] = await self._redis.command(
            *("ZRANGEBYSCORE", token_names.CHANGES, oldest_ms, "+inf", "WITHSCORES"),
            *("LIMIT", 0, _MOST_NOTES),
        )
        if len(found) >= 2 * _MOST_NOTES:
            return None
        pairs = zip(found[::2], found[1::2], strict=True)
        return {account.decode(): float(at_ms) for account, at_ms in pairs}

    async def _note(self, account_id: str) -> None:
        await self._redis.script("token_change_note", [token_names.CHANGES], account_id, _NOTES_KEPT_MS)

    async def _add(self, account_id: str, key: TokenKey) -> TokenKey:
        names = [keyspace.account(account_id), keyspace.token_keys(account_id)]
        is_servers = int(key.origin is Origin.SERVER)
        record = orjson.dumps(
            {
                "algorithm": key.algorithm,
                "material": key.material,
                "created_at_ms": key.created_at_ms,
                "origin": key.origin,
            }
        )
        status, *fields = await self._redis.script(
            "token_key_add", names, key.kid, record, MOST_KEYS, is_servers
        )
        if status == b"absent":
            raise NoSuchAccount
        if status == b"full":
            raise TooManyTokenKeys
        return _key(fields[0].decode(), fields[1])


def _still(score: bytes | None, now_ms: int) -> float | None:
    """The time of a cut-off; None without one, or when it has ended."""
    if score is None or (at_ms := float(score)) <= now_ms - CUT_OFF_KEPT_MS:
        return None
    return at_ms


def _key(kid: str, record: bytes) -> TokenKey:
    stored = orjson.loads(record)
    return TokenKey(
        kid=kid,
        algorithm=Algorithm(stored["algorithm"]),
        material=stored["material"],
        created_at_ms=stored["created_at_ms"],
        origin=Origin(stored["origin"]),
    )
