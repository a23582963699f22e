"""Accounts and their API keys."""

from shared.model.api_keys import Account, ApiKey, Scope, id_in
from shared.store import keyspace
from shared.store.calls import Calls
from shared.store.nudges import Nudges
from shared.store.routes import Routing


class ApiKeys:
    """Keeps accounts and API keys. The key's record is in its channel's slot, the list in the account's."""

    def __init__(self, calls: Calls, routing: Routing, nudges: Nudges) -> None:
        self._calls = calls
        self._routing = routing
        self._nudges = nudges

    async def create_account(self, account: Account) -> None:
        name = keyspace.account(account.id)
        await self._calls.command("HSET", name, "name", account.name, "parent", account.parent or "")

    async def account(self, account_id: str) -> Account | None:
        found = await self._calls.command("HMGET", keyspace.account(account_id), "name", "parent")
        if found[0] is None:
            return None
        return Account(id=account_id, name=found[0].decode(), parent=found[1].decode() or None)

    async def create(self, key: ApiKey) -> None:
        # The record last: a key that proves something is in its account's routes.
        await self._routing.add_key(key.account_id, key.id)
        await self._calls.command(
            "HSET",
            keyspace.api_key(key.id),
            *("account_id", key.account_id, "name", key.name, "scopes", " ".join(sorted(key.scopes))),
            *("created_at_ms", key.created_at_ms, "secret_hash", key.secret_hash),
        )

    async def find(self, api_key_id: str) -> ApiKey | None:
        """The API key as it stands now; None when it was never made, or was revoked."""
        names = ("account_id", "name", "scopes", "created_at_ms", "secret_hash")
        found = await self._calls.command("HMGET", keyspace.api_key(api_key_id), *names)
        if found[0] is None:
            return None
        account_id, name, scopes, created_at_ms, secret_hash = (value.decode() for value in found)
        return ApiKey(
            id=api_key_id,
            account_id=account_id,
            name=name,
            scopes=frozenset(Scope(scope) for scope in scopes.split()),
            created_at_ms=int(created_at_ms),
            secret_hash=secret_hash,
        )

    async def proven_by(self, secret: str | None) -> ApiKey | None:
        """The API key whose secret this is; None for anything else."""
        api_key_id = id_in(secret) if secret else None
        if secret is None or api_key_id is None:
            return None
        key = await self.find(api_key_id)
        return key if key is not None and key.proves(secret) else None

    async def revoke(self, key: ApiKey) -> bool:
        """Ends the key with its channel and queue, and tells its socket's owner; False when it was gone."""
        i = key.id
        names = [keyspace.api_key(i), keyspace.channel(i), keyspace.lease(i), keyspace.queue(i)]
        word, *found = await self._calls.script("key_revoke", names)
        owner, incarnation = (value.decode() for value in found) if found else ("", "")
        if owner:
            self._nudges.send(owner, i)
        # Routes that still name it do no harm: nothing can be queued for it any more.
        await self._routing.drop_key(key.account_id, i, incarnation=incarnation)
        return bool(word == b"revoked")
