"""Accounts and their API keys."""

import asyncio

from shared.model.api_keys import Account, ApiKey, Scope, id_in
from shared.model.channels import EVERY_EDGE
from shared.model.errors import KeyExpired, KeyRevoked, SecretsInUse
from shared.redis.pipeline import RedisCommands
from shared.store import keyspace
from shared.store.routing import Routing
from shared.store.wakeups import Wakeups

_FIELDS = ("account_id", "name", "scopes", "created_at_ms", "secret_hash")
# A chain of accounts longer than this is not followed to its end.
_MAX_ANCESTORS = 32
_MAY_LACK = ("expires_at_ms", "old_secret_hash", "old_valid_until_ms")


class ApiKeys:
    """Keeps accounts and API keys. The key's record is in its channel's slot, the list in the account's."""

    def __init__(self, redis: RedisCommands, routing: Routing, wakeups: Wakeups) -> None:
        self._redis = redis
        self._routing = routing
        self._wakeups = wakeups

    async def create_account(self, account: Account) -> None:
        name = keyspace.account(account.id)
        master = ("master", "1") if account.master else ()
        await self._redis.command("HSET", name, "name", account.name, "parent", account.parent or "", *master)

    async def account(self, account_id: str) -> Account | None:
        found = await self._redis.command("HMGET", keyspace.account(account_id), "name", "parent", "master")
        if found[0] is None:
            return None
        name, parent = found[0].decode(), found[1].decode() or None
        return Account(id=account_id, name=name, parent=parent, master=found[2] is not None)

    async def is_within(self, account_id: str, *, of: str) -> bool:
        """Is it this account, or one below it? Looks at most 32 levels up."""
        at: str | None = account_id
        for _ in range(_MAX_ANCESTORS):
            if at == of or at is None:
                break
            found = await self.account(at)
            at = None if found is None else found.parent
        return at == of

    async def create(self, key: ApiKey) -> None:
        # The record first: table that name a key without one are taken for old, and mended. Until both are
        # written nobody has been told the secret.
        expires = () if key.expires_at_ms is None else ("expires_at_ms", key.expires_at_ms)
        await self._redis.command(
            "HSET",
            keyspace.api_key(key.id),
            *("account_id", key.account_id, "name", key.name, "scopes", " ".join(sorted(key.scopes))),
            *("created_at_ms", key.created_at_ms, "secret_hash", key.secret_hash, *expires),
        )
        await self._routing.add_key(key.account_id, key.id)
        if key.expires_at_ms is not None:
            await self._routing.add_expiry(key.account_id, key.id, expires_at_ms=key.expires_at_ms)

    async def find(self, api_key_id: str) -> ApiKey | None:
        """The API key as it stands now, expired or not; None when it was never made, or was revoked."""
        found = await self._redis.command("HMGET", keyspace.api_key(api_key_id), *_FIELDS, *_MAY_LACK)
        if found[0] is None:
            return None
        account_id, name, scopes, created_at_ms, secret_hash = (value.decode() for value in found[:5])
        expires_at_ms, old_secret_hash, old_valid_until_ms = found[5:]
        return ApiKey(
            id=api_key_id,
            account_id=account_id,
            name=name,
            scopes=frozenset(Scope(scope) for scope in scopes.split()),
            created_at_ms=int(created_at_ms),
            secret_hash=secret_hash,
            expires_at_ms=_number(expires_at_ms),
            old_secret_hash=None if old_secret_hash is None else old_secret_hash.decode(),
            old_valid_until_ms=_number(old_valid_until_ms),
        )

    async def of_account(self, account_id: str, *, after: str, count: int) -> tuple[list[ApiKey], str | None]:
        """API keys of an account in the order of their ids, from behind `after`, at most `count` of them.

        With them what `after` must be to see the next; None when there are no more.
        """
        mentioned, _ = await self._routing.entries(account_id)
        ids = sorted(api_key_id for api_key_id in mentioned if api_key_id > after)
        found = await asyncio.gather(*map(self.find, ids[:count]))
        # One that is being made or revoked has no record.
        keys = [key for key in found if key is not None]
        return keys, ids[count - 1] if len(ids) > count else None

    async def authenticate(self, secret: str | None, *, now_ms: int) -> ApiKey | None:
        """The API key whose secret this is, valid now; None for anything else."""
        api_key_id = id_in(secret) if secret else None
        if secret is None or api_key_id is None:
            return None
        key = await self.find(api_key_id)
        return key if key is not None and key.accepts(secret, now_ms=now_ms) else None

    async def rotate(self, key: ApiKey, *, secret_hash: str, old_valid_until_ms: int, now_ms: int) -> None:
        """Gives the key a new secret; the one it had stays valid until then. Tells the owner of its socket.

        Raises SecretsInUse when the last rotation's old secret is still valid; KeyExpired; KeyRevoked.
        """
        names = [keyspace.api_key(key.id), keyspace.lease(key.id)]
        word, *found = await self._redis.script("key_rotate", names, secret_hash, old_valid_until_ms, now_ms)
        match word:
            case b"in use":
                raise SecretsInUse(until_ms=int(found[0]))
            case b"expired":
                raise KeyExpired
            case b"absent":
                raise KeyRevoked
        if found[0]:
            self._wakeups.send_key_changed(found[0].decode(), key.id)
        self._wakeups.send_key_changed(EVERY_EDGE, key.id)

    async def token_key(self, *, offered: str) -> str:
        """The key that signs tokens on every replica; the one offered if there is none yet."""
        found = await self._redis.command("GET", keyspace.SIGNING_KEY)
        if found is None:
            await self._redis.command("SET", keyspace.SIGNING_KEY, offered, "NX")
            found = await self._redis.command("GET", keyspace.SIGNING_KEY)
        return str(found.decode())

    async def signing_secret(self, api_key_id: str, *, offered: str) -> str:
        """The secret that signs this API key's webhooks; the one offered if there is none yet.

        Raises KeyRevoked.
        """
        word, *found = await self._redis.script("key_sign", [keyspace.api_key(api_key_id)], offered)
        if word == b"revoked":
            raise KeyRevoked
        return str(found[0].decode())

    async def revoke(self, key: ApiKey) -> bool:
        """Ends the key with its channel and queue, and tells its socket's owner; False when it was gone."""
        i = key.id
        names = keyspace.of_a_queue(i)
        word, *found = await self._redis.script("key_revoke", names)
        owner, generation = (value.decode() for value in found) if found else ("", "")
        if owner:
            self._wakeups.send(owner, i)
        self._wakeups.send_key_changed(EVERY_EDGE, i)
        # RoutingTable that still name it do no harm: nothing can be queued for it any more.
        await self._routing.drop_key(key.account_id, i, generation=generation)
        return bool(word == b"revoked")


def _number(stored: bytes | None) -> int | None:
    return None if stored is None else int(stored)
