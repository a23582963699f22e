"""Deletes accounts with everything that Redis keeps for them, in bounded steps.

The account's record says that it is being deleted before anything is freed, and for an hour after: so a
writer that began before brings nothing back. Each step can be repeated, so a deletion that was cut short goes
on where it stopped; only receipts of keys that were freed before that stay until their TTL of an hour.
"""

import asyncio
import time
from collections.abc import Awaitable, Sequence
from typing import TypeVar

from shared.model.channels import Kind
from shared.model.errors import HasApiKeys, HasChildren, NoSuchAccount
from shared.redis.pipeline import RedisCommands
from shared.store import keyspace
from shared.store.api_keys import ApiKeys
from shared.store.channels import Channels
from shared.store.recount import pages
from shared.store.sessions import Sessions
from shared.store.streams import Streams
from shared.store.token_keys import TokenKeys

# What travels in one pipeline: other accounts' commands wait for no more.
_AT_ONCE = 10
# A step is followed by a rest of so many times its own duration: a deletion has a fifth of a gateway at most.
_REST = 4
_LONGEST_REST_S = 1.0
_MEMBERS_A_PAGE = 200
_NAMES_A_PAGE = 500

T = TypeVar("T")


class AccountDeletion:
    """Begins and finishes deletions."""

    def __init__(
        self,
        redis: RedisCommands,
        *,
        api_keys: ApiKeys,
        channels: Channels,
        sessions: Sessions,
        streams: Streams,
        token_keys: TokenKeys,
    ) -> None:
        self._redis = redis
        self._streams = streams
        self._api_keys = api_keys
        self._channels = channels
        self._sessions = sessions
        self._token_keys = token_keys

    async def begin(self, account_id: str, *, cascade: bool) -> None:
        """From now on the account counts as missing. With API keys only if it is to `cascade`.

        Raises NoSuchAccount, HasChildren, HasApiKeys.
        """
        status, *_ = await self._delete(account_id, cascade=cascade)
        if status == b"absent":
            raise NoSuchAccount
        if status == b"has_children":
            raise HasChildren
        if status == b"has_keys":
            raise HasApiKeys
        await self._redis.script("deletion_note", [keyspace.DELETING], account_id)

    async def finish(self, account_id: str) -> None:
        """Frees everything of an account whose deletion has begun, and does nothing for another one.

        Its sockets close, as when an API key is revoked. Raises StoreUnavailable; a repetition goes on.
        """
        name, parent, deleting = await self._redis.command(
            "HMGET", keyspace.account(account_id), "name", "parent", "deleting"
        )
        if name is not None and deleting is not None:
            await self._token_keys.drop_all(account_id)
            api_keys = await self._free_keys(account_id)
            await self._drop_sessions(account_id)
            await self._streams.drop(account_id)
            # Responses to publishers by token lie in the account's own slot.
            await self._redis.script("key_free", keyspace.leftovers(account_id))
            if await self._redis.command("EXISTS", keyspace.has_receipts(account_id)):
                await self._free_receipts({account_id, *api_keys})
            if parent:
                await self._redis.command("SREM", keyspace.children(parent.decode()), account_id)
            await self._api_keys.names.drop(name.decode(), account_id)
            await self._redis.script("account_end", keyspace.names_of_account(account_id))
        await self._redis.command("SREM", keyspace.DELETING, account_id)

    async def unfinished(self) -> list[str]:
        """The accounts whose deletion has begun and not ended."""
        members = await self._redis.command("SRANDMEMBER", keyspace.DELETING, _MEMBERS_A_PAGE)
        return [member.decode() for member in members]

    async def finish_all(self) -> None:
        """Finishes deletions that a gateway began and did not finish. Raises StoreUnavailable."""
        for account_id in await self.unfinished():
            await self.finish(account_id)

    async def _delete(self, account_id: str, *, cascade: bool) -> Sequence[bytes]:
        names = [keyspace.account(account_id), keyspace.children(account_id), keyspace.counts(account_id)]
        reply: Sequence[bytes] = await self._redis.script("account_delete", names, int(cascade))
        return reply

    async def _free_keys(self, account_id: str) -> list[str]:
        """Revokes the account's API keys, and frees what is left of them and their channels; returns them."""
        freed = []
        async for api_key_ids in pages(self._redis, "HSCAN", keyspace.routing(account_id), "key:*"):
            for start in range(0, len(api_key_ids), _AT_ONCE):
                some = [field.removeprefix("key:") for field in api_key_ids[start : start + _AT_ONCE]]
                await _paced(self._free_some(account_id, some))
                freed += some
        return freed

    async def _free_some(self, account_id: str, api_key_ids: Sequence[str]) -> None:
        refs = await asyncio.gather(*map(self._channels.ref, api_key_ids))
        webhooks = [
            f"{api_key_id}:{ref.generation}"
            for api_key_id, ref in zip(api_key_ids, refs, strict=True)
            if ref.kind is Kind.WEBHOOK
        ]
        if webhooks:
            # First: only its record says what it is called there.
            await self._redis.command("SREM", keyspace.WEBHOOKS, *webhooks)
        ended = await self._api_keys.end(api_key_ids)
        await asyncio.gather(
            *(self._redis.script("key_free", keyspace.leftovers(each)) for each in api_key_ids)
        )
        # Last: a deletion that was cut short finds the keys in the table.
        await self._api_keys.forget(account_id, ended)

    async def _drop_sessions(self, account_id: str) -> None:
        async for ids in pages(self._redis, "SSCAN", keyspace.sessions(account_id), "*"):
            for start in range(0, len(ids), _AT_ONCE):
                await _paced(self._drop_some_sessions(ids[start : start + _AT_ONCE]))

    async def _drop_some_sessions(self, ids: Sequence[str]) -> None:
        await asyncio.gather(*map(self._drop_session, ids))

    async def _drop_session(self, session_id: str) -> None:
        session = await self._sessions.read(session_id)
        if session is not None:
            await self._sessions.drop(session)

    async def _free_receipts(self, tags: set[str]) -> None:
        """Receipts have no index, because they expire within an hour: walks through all names."""
        cursor = ""
        while True:
            cursor = await _paced(self._free_receipts_of_page(tags, cursor))
            if not cursor:
                return

    async def _free_receipts_of_page(self, tags: set[str], cursor: str) -> str:
        following, names = await self._redis.scan_page(cursor, count=_NAMES_A_PAGE)
        own = [name for name in names if b":receipt:" in name and keyspace.id_in(name) in tags]
        await asyncio.gather(*(self._redis.command("UNLINK", name) for name in own))
        return following


async def _paced(step: Awaitable[T]) -> T:
    """Awaits a step, and rests: neither Redis nor this process is kept busy by a deletion alone."""
    began_s = time.monotonic()
    result = await step
    await asyncio.sleep(min(_REST * (time.monotonic() - began_s), _LONGEST_REST_S))
    return result
