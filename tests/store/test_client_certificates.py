"""Client certificates of native webhooks: with the channel, for the next attempt, and read once."""

import pytest

from shared.model.account_channels import AccountChannel
from shared.model.callbacks import Callback
from shared.model.channels import Kind
from shared.model.client_certificates import CertificateFacts, ClientCertificate
from shared.model.webhooks import WebhookPolicy
from shared.store import client_certificates as module
from shared.store import keyspace
from shared.store.client_certificates import ClientCertificates
from tests.store.native import create
from tests.store.stores import Stores

FACTS = CertificateFacts("CN=x", "ab" * 32, 1_800_000_000_000)


@pytest.fixture
def certificates(stores: Stores) -> ClientCertificates:
    return ClientCertificates(stores.calls, stores.wakeups)


async def a_webhook(stores: Stores) -> AccountChannel:
    there = Callback("https://example.com/", {})
    channel = await create(stores, kind=Kind.WEBHOOK, callback=there, policy=WebhookPolicy())
    found = await stores.account_channels.read(channel)
    assert found is not None
    return found


async def config_version(stores: Stores, channel: str) -> str:
    stored = await stores.calls.command("HGET", keyspace.channel(channel), "config_version")
    return str(stored.decode())


async def put(
    of: ClientCertificates, channel: AccountChannel, chain: str = "chain", key: str = "key"
) -> bool:
    return await of.put(channel.record.id, generation=channel.generation, chain=chain, key=key, facts=FACTS)


async def test_what_was_put_is_read_back_and_shown_without_the_key(
    stores: Stores, certificates: ClientCertificates
) -> None:
    channel = await a_webhook(stores)
    assert await certificates.facts(channel.record.id) is None
    assert await certificates.read(channel.record.id) is None

    assert await put(certificates, channel)

    found = await certificates.read(channel.record.id)
    assert found is not None
    assert (found.chain, found.key) == ("chain", "key")
    assert await certificates.facts(channel.record.id) == FACTS


async def test_a_change_counts_for_the_next_attempt(stores: Stores, certificates: ClientCertificates) -> None:
    channel = await a_webhook(stores)
    name = keyspace.channel(channel.record.id)
    seen: list[tuple[str, str | None]] = []

    async def attempt() -> None:
        version = await config_version(stores, channel.record.id)
        found = await certificates.current(channel.record.id, config_version=version)
        seen.append((version, None if found is None else found.key))

    await attempt()
    for key in ("one", "two"):
        await stores.calls.command("HSET", name, "next_attempt_ms", 10**14)
        assert await put(certificates, channel, key=key)
        assert await stores.calls.command("HGET", name, "next_attempt_ms") is None, "it is due at once"
        await attempt()
    await stores.calls.command("HSET", name, "next_attempt_ms", 10**14)
    assert await certificates.drop(channel.record.id)
    assert await stores.calls.command("HGET", name, "next_attempt_ms") is None
    await attempt()

    assert [key for _, key in seen] == [None, "one", "two", None]
    assert len({version for version, _ in seen}) == 4


async def test_an_attempt_without_a_change_asks_redis_for_nothing(
    stores: Stores, certificates: ClientCertificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[str] = []
    original = ClientCertificates.read

    async def counting(self: ClientCertificates, channel: str) -> ClientCertificate | None:
        reads.append(channel)
        return await original(self, channel)

    monkeypatch.setattr(ClientCertificates, "read", counting)
    with_one, without = await a_webhook(stores), await a_webhook(stores)
    await put(certificates, with_one)
    for _ in range(3):
        for channel in (with_one, without):
            version = await config_version(stores, channel.record.id)
            await certificates.current(channel.record.id, config_version=version)

    assert reads == [with_one.record.id, without.record.id]


async def test_memory_keeps_few_certificates(
    stores: Stores, certificates: ClientCertificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_KEPT", 2)
    monkeypatch.setattr(module, "_KNOWN", 3)
    channels = [await a_webhook(stores) for _ in range(5)]
    for channel in channels:
        await put(certificates, channel, key=channel.record.id)
    for channel in (*channels, *reversed(channels)):
        version = await config_version(stores, channel.record.id)
        found = await certificates.current(channel.record.id, config_version=version)
        assert found is not None
        assert found.key == channel.record.id

    assert (len(certificates._kept), len(certificates._known)) == (2, 3)


async def test_only_a_native_webhook_of_that_generation_takes_one(
    stores: Stores, certificates: ClientCertificates
) -> None:
    webhook = await a_webhook(stores)
    options = {"chain": "c", "key": "k", "facts": FACTS}
    assert not await certificates.put(webhook.record.id, generation="another", **options)  # type: ignore[arg-type]
    pull = await create(stores, kind=Kind.PULL)
    found = await stores.account_channels.read(pull)
    assert found is not None
    assert not await put(certificates, found)
    key, _ = await stores.api_key()
    there = Callback("https://example.com/", {})
    await stores.channels.put_webhook(stores.account_id, key.id, there, serialization=b"")
    of_key = await stores.account_channels.read(key.id)
    assert of_key is not None
    assert not await put(certificates, of_key)
    for channel in (webhook, found, of_key):
        assert await certificates.read(channel.record.id) is None
        assert not await certificates.drop(channel.record.id)


async def test_it_ends_with_its_channel(stores: Stores, certificates: ClientCertificates) -> None:
    channel = await a_webhook(stores)
    await put(certificates, channel)
    assert await stores.account_channels.delete(channel)

    assert await certificates.read(channel.record.id) is None
    assert not await put(certificates, channel)
    assert await stores.calls.command("EXISTS", keyspace.channel(channel.record.id)) == 0


async def test_another_url_keeps_it(stores: Stores, certificates: ClientCertificates) -> None:
    channel = await a_webhook(stores)
    await put(certificates, channel)
    there = Callback("https://other.example/", {})
    await stores.account_channels.change_webhook(channel, lambda _: (there, WebhookPolicy()))

    version = await config_version(stores, channel.record.id)
    assert await certificates.current(channel.record.id, config_version=version) is not None
