"""Client certificates of native webhooks. They lie in the channel's record and end with it.

A dispatcher asks for the certificate of each attempt. The config version of the channel, which an attempt
knows anyway, changes with the certificate: while it stays, the answer needs no Redis.
"""

import secrets
from collections import OrderedDict
from typing import TypeVar

import orjson

from shared.model.channels import ANY_DISPATCHER
from shared.model.client_certificates import CertificateFacts, ClientCertificate
from shared.redis.pipeline import RedisCommands
from shared.store import keyspace
from shared.store.wakeups import Wakeups

# A version is short; a certificate with its chain and key has up to 24 KiB.
_KNOWN = 20_000
_KEPT = 256
T = TypeVar("T")


class ClientCertificates:
    """Puts, shows, reads and removes them."""

    def __init__(self, redis: RedisCommands, wakeups: Wakeups) -> None:
        self._redis = redis
        self._wakeups = wakeups
        # The config version for which it was read, and the certificate's version ('' without one).
        self._known: OrderedDict[str, tuple[str, str]] = OrderedDict()
        self._kept: OrderedDict[str, ClientCertificate] = OrderedDict()

    async def put(
        self, channel: str, *, generation: str, chain: str, key: str, facts: CertificateFacts
    ) -> bool:
        """The next attempt shows it. False when the channel has ended, or is no native webhook."""
        versions = (secrets.token_hex(8), secrets.token_hex(16))
        names = keyspace.channel_names(channel)[:2]
        written = await self._redis.script(
            "certificate_put", names, generation, *versions, chain, key, orjson.dumps(facts)
        )
        if written:
            self._wakeups.send(ANY_DISPATCHER, channel)
        return bool(written)

    async def facts(self, channel: str) -> CertificateFacts | None:
        """What may be shown; None without a certificate."""
        stored = await self._redis.command("HGET", keyspace.channel(channel), "client_facts")
        return None if stored is None else CertificateFacts(**orjson.loads(stored))

    async def drop(self, channel: str) -> bool:
        """False when there is none."""
        names = [keyspace.channel(channel)]
        dropped = await self._redis.script("certificate_drop", names, secrets.token_hex(8))
        if dropped:
            self._wakeups.send(ANY_DISPATCHER, channel)
        return bool(dropped)

    async def read(self, channel: str) -> ClientCertificate | None:
        """As it is now; None without one."""
        name = keyspace.channel(channel)
        fields = ("client_certificate", "client_chain", "client_key")
        version, chain, key = await self._redis.command("HMGET", name, *fields)
        if version is None or chain is None or key is None:
            return None
        return ClientCertificate(version.decode(), chain.decode(), key.decode())

    async def current(self, channel: str, *, config_version: str) -> ClientCertificate | None:
        """The same for an attempt with this configuration, from memory if possible."""
        known = self._known.get(channel)
        if known is not None and known[0] == config_version:
            self._known.move_to_end(channel)
            if not known[1]:
                return None
            if (kept := self._kept.get(known[1])) is not None:
                self._kept.move_to_end(known[1])
                return kept
        found = await self.read(channel)
        if known is not None:
            self._kept.pop(known[1], None)
        _keep(self._known, channel, (config_version, "" if found is None else found.version), most=_KNOWN)
        if found is not None:
            _keep(self._kept, found.version, found, most=_KEPT)
        return found


def _keep(kept: OrderedDict[str, T], name: str, value: T, *, most: int) -> None:
    """The one that was used longest ago gives way."""
    kept[name] = value
    kept.move_to_end(name)
    if len(kept) > most:
        kept.popitem(last=False)
