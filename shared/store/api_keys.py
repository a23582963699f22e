"""Accounts and their API keys."""

import asyncio
from collections.abc import Mapping, Sequence
from functools import lru_cache

from shared.model.api_keys import Account, ApiKey, Scope, id_in
from shared.model.channels import EVERY_EDGE
from shared.model.errors import KeyExpired, KeyRevoked, NoSuchAccount, SecretsInUse
from shared.redis.pipeline import RedisCommands
from shared.store import keyspace
from shared.store.account_names import AccountNames
from shared.store.due_channels import DueChannels
from shared.store.routing import Routing
from shared.store.wakeups import Wakeups

_REQUIRED = ("account_id", "name", "scopes", "created_at_ms", "secret_hash")
_OPTIONAL = ("expires_at_ms", "old_secret_hash", "old_valid_until_ms")
_MAX_ANCESTORS = 32


class ApiKeys:
    """Keeps accounts and API keys. A key's record lies in its channel's slot, the list in the account's."""

    def __init__(self, redis: RedisCommands, routing: Routing, wakeups: Wakeups) -> None:
        self._redis = redis
        self._routing = routing
        self._wakeups = wakeups
        self._due = DueChannels(redis)
        self.names = AccountNames(redis)

    async def create_account(self, account: Account) -> None:
        """Raises NoSuchAccount when there is no such parent."""
        name = keyspace.account(account.id)
        master = ("master", "1") if account.master else ()
        await self.names.add(account.name, account.id)
        await self._redis.command("HSET", name, "name", account.name, "parent", account.parent or "", *master)
        if account.parent is None:
            return
        # After the record: the children of an account are accounts that exist.
        names = [keyspace.account(account.parent), keyspace.children(account.parent)]
        if not await self._redis.script("account_adopt", names, account.id):
            await self._redis.command("DEL", name)
            await self.names.drop(account.name, account.id)
            raise NoSuchAccount

    async def rename_account(self, account: Account, name: str) -> None:
        """Raises NoSuchAccount when it is gone meanwhile."""
        await self.names.add(name, account.id)
        if not await self._redis.script("account_rename", [keyspace.account(account.id)], name):
            await self.names.drop(name, account.id)
            raise NoSuchAccount
        if name != account.name:
            await self.names.drop(account.name, account.id)

    async def accounts(self, prefix: str, *, after: str, count: int) -> tuple[list[Account], str | None]:
        """A page of the accounts whose names begin so, by their names; as `AccountNames.page`."""
        ids, next_after = await self.names.page(prefix, after=after, count=count)
        found = await asyncio.gather(*map(self.account, ids))
        return [account for account in found if account is not None], next_after

    async def account(self, account_id: str) -> Account | None:
        """The account; None when there is none, or when it is being deleted."""
        name, parent, master, deleting = await self._redis.command(
            "HMGET", keyspace.account(account_id), "name", "parent", "master", "deleting"
        )
        if name is None or deleting is not None:
            return None
        parent_id = parent.decode() or None
        return Account(id=account_id, name=name.decode(), parent=parent_id, master=master is not None)

    async def is_within(self, account_id: str, *, of: str) -> bool:
        """Whether the account is `of`, or lies below it. Follows at most 32 parents."""
        at: str | None = account_id
        for _ in range(_MAX_ANCESTORS):
            if at == of or at is None:
                break
            account = await self.account(at)
            at = None if account is None else account.parent
        return at == of

    async def create(self, key: ApiKey) -> None:
        """Raises NoSuchAccount when the account is being deleted."""
        # Write the record first: the reaper drops keys without a record from the routing table. The secret
        # is returned only after both writes.
        expires = () if key.expires_at_ms is None else ("expires_at_ms", key.expires_at_ms)
        await self._redis.command(
            "HSET",
            keyspace.api_key(key.id),
            *("account_id", key.account_id, "name", key.name, "scopes", " ".join(sorted(key.scopes))),
            *("created_at_ms", key.created_at_ms, "secret_hash", key.secret_hash, *expires),
        )
        if not await self._routing.add_key(key.account_id, key.id):
            await self._redis.command("DEL", keyspace.api_key(key.id))
            raise NoSuchAccount
        if key.expires_at_ms is not None:
            await self._routing.add_expiry(key.account_id, key.id, expires_at_ms=key.expires_at_ms)

    async def find(self, api_key_id: str) -> ApiKey | None:
        """The API key, expired or not; None when it does not exist, was revoked, or is a native channel."""
        fields = await self._redis.command("HMGET", keyspace.api_key(api_key_id), *_REQUIRED, *_OPTIONAL)
        # Without the hash of a secret it is no key, and no caller may pass for it.
        if None in fields[: len(_REQUIRED)]:
            return None
        account_id, name, scopes, created_at_ms, secret_hash = (value.decode() for value in fields[:5])
        expires_at_ms, old_secret_hash, old_valid_until_ms = fields[5:]
        return ApiKey(
            id=api_key_id,
            account_id=account_id,
            name=name,
            scopes=_scopes_of(scopes),
            created_at_ms=int(created_at_ms),
            secret_hash=secret_hash,
            expires_at_ms=_number(expires_at_ms),
            old_secret_hash=None if old_secret_hash is None else old_secret_hash.decode(),
            old_valid_until_ms=_number(old_valid_until_ms),
        )

    async def of_account(self, account_id: str, *, after: str, count: int) -> tuple[list[ApiKey], str | None]:
        """A page of an account's API keys: at most `count` with ids above `after`, in the order of ids.

        Also returns the `after` of the next page, None on the last.
        """
        key_ids = await self._routing.api_keys(account_id)
        ids = sorted(api_key_id for api_key_id in key_ids if api_key_id > after)
        page = await asyncio.gather(*map(self.find, ids[:count]))
        # A key that is being created or revoked may have no record.
        keys = [key for key in page if key is not None]
        return keys, ids[count - 1] if len(ids) > count else None

    async def authenticate(self, secret: str | None, *, now_ms: int) -> ApiKey | None:
        """The API key with this secret, if it is valid now."""
        api_key_id = id_in(secret) if secret else None
        if secret is None or api_key_id is None:
            return None
        key = await self.find(api_key_id)
        return key if key is not None and key.accepts(secret, now_ms=now_ms) else None

    async def rotate(self, key: ApiKey, *, secret_hash: str, old_valid_until_ms: int) -> None:
        """Gives the key a new secret; the old one stays valid until then. Makes edges check their sockets.

        0 ends the old one at once.

        Raises SecretsInUse while the last rotation's old secret is valid; KeyExpired; KeyRevoked.
        """
        names = keyspace.channel_names(key.id)[:2]
        status, *fields = await self._redis.script("key_rotate", names, secret_hash, old_valid_until_ms)
        match status:
            case b"in_use":
                raise SecretsInUse(until_ms=int(fields[0]))
            case b"expired":
                raise KeyExpired
            case b"absent":
                raise KeyRevoked
        if fields[0]:
            self._wakeups.send_key_changed(fields[0].decode(), key.id)
        self._wakeups.send_key_changed(EVERY_EDGE, key.id)
        await self._routing.change_credentials()

    async def credentials_version(self) -> bytes:
        """Changes after each revocation and each rotation of any API key."""
        return await self._routing.credentials_version()

    async def token_key(self, *, offered: str) -> str:
        """The key that signs tokens on every replica; stores the one offered if there is none."""
        stored = await self._redis.command("GET", keyspace.SIGNING_KEY)
        if stored is None:
            await self._redis.command("SET", keyspace.SIGNING_KEY, offered, "NX")
            stored = await self._redis.command("GET", keyspace.SIGNING_KEY)
        return str(stored.decode())

    async def revoke(self, key: ApiKey) -> bool:
        """Ends the key with its channel and queue, and wakes the owner; False when it was gone."""
        ended = await self.end([key.id])
        await self.forget(key.account_id, ended)
        return ended[key.id] is not None

    async def end(self, api_key_ids: Sequence[str]) -> dict[str, str | None]:
        """Ends keys with their channels, and wakes the owners; gateways and edges notice all at once.

        Returns the generation of each one's channel, '' without one; None for a key that was gone. `forget`
        completes it.
        """
        generations = await asyncio.gather(*map(self._revoke, api_key_ids))
        await self._routing.change_credentials()
        return dict(zip(api_key_ids, generations, strict=True))

    async def end_again(self, api_key_id: str) -> None:
        """Makes gateways and edges notice a key that is gone; leaves alone one that exists."""
        if not await self._redis.command("EXISTS", keyspace.api_key(api_key_id)):
            await self.end([api_key_id])

    async def forget(self, account_id: str, ended: Mapping[str, str | None]) -> None:
        """Drops keys from the routing table, which is harmless until then: appends find no channel."""
        drop = self._routing.drop_key
        await asyncio.gather(
            *(drop(account_id, each, generation=generation or "") for each, generation in ended.items())
        )
        await asyncio.gather(*map(self._due.remove, ended))

    async def _revoke(self, api_key_id: str) -> str | None:
        """The generation of its channel, '' without one; None when the key was gone."""
        status, *fields = await self._redis.script("key_revoke", keyspace.channel_names(api_key_id))
        owner, generation = (value.decode() for value in fields) if fields else ("", "")
        if owner:
            self._wakeups.send(owner, api_key_id)
            self._wakeups.send_webhook_changed(owner, api_key_id)
        self._wakeups.send_key_changed(EVERY_EDGE, api_key_id)
        return generation if status == b"revoked" else None


def _number(stored: bytes | None) -> int | None:
    return None if stored is None else int(stored)


@lru_cache(maxsize=256)
def _scopes_of(text: str) -> frozenset[Scope]:
    return frozenset(Scope(scope) for scope in text.split())
