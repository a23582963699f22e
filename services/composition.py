"""The one place that builds stores, outbound calls and job queues from settings."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext

from redis.asyncio import Redis

from shared.model.addresses import AddressPolicy
from shared.model.quotas import KeyQuotas, Quotas
from shared.model.streams import Keep
from shared.native_tokens import NativeTokens
from shared.outbound.client import Outbound
from shared.publish.idempotency import IdempotentRequests
from shared.publish.publisher import Publisher
from shared.publish.publishing import Publishing
from shared.publish.rates import Rates
from shared.publish.stores import PublishStores
from shared.redis.client import connect
from shared.runtime.settings import Settings
from shared.store.account_channels import AccountChannels
from shared.store.account_deletion import AccountDeletion
from shared.store.api_keys import ApiKeys
from shared.store.attempt_bytes import AttemptBytes
from shared.store.attempts import Attempts
from shared.store.audit import AuditLog
from shared.store.batches import Batches
from shared.store.channel_pages import ChannelPages
from shared.store.channels import Channels
from shared.store.client_certificates import ClientCertificates
from shared.store.commands import commands_to
from shared.store.due_channels import DueChannels
from shared.store.due_webhooks import DueWebhooks
from shared.store.fetches import Fetches
from shared.store.idempotency import Idempotency
from shared.store.leases import Leases
from shared.store.memory import RedisMemory
from shared.store.names import Names
from shared.store.parallel_batches import ParallelBatches
from shared.store.queues import QueueLimits, Queues
from shared.store.quotas import AccountQuotas
from shared.store.receipts import Receipts
from shared.store.replays import Replays
from shared.store.replicas import Heartbeat, Replicas, new_instance_id
from shared.store.rounds import Rounds
from shared.store.routing import Routing
from shared.store.sessions import Sessions
from shared.store.signing_secrets import SigningSecrets
from shared.store.stored_bytes import StoredBytes
from shared.store.stream_reads import StreamReads
from shared.store.streams import StreamLimits, Streams
from shared.store.tickets import Tickets
from shared.store.token_keys import TokenKeys
from shared.store.wakeups import Wakeups
from shared.store.webhook_notices import WebhookNotices
from shared.store.webhooks import Webhooks
from shared.tokens import Principals
from shared.wire.pelion.subscriptions import compiled
from shared.wire.sessions import encode_patterns


def _stream_limits(settings: Settings) -> StreamLimits:
    keep = Keep(settings.stream_events_limit, round(settings.stream_age_limit_s * 1000))
    return StreamLimits(keep, settings.stream_topics_limit)


class Stores:
    """The store's nouns for one service, under an instance id of its own.

    `redis` is the plain client, for subscriptions to wakeups.
    """

    def __init__(self, settings: Settings, client: Redis) -> None:
        redis = commands_to(client)
        limits = QueueLimits(settings.queue_limit_bytes, round(settings.notification_lifetime_s * 1000))
        self.queue_limits = limits
        self.redis = client
        self.instance = new_instance_id(settings.replica)
        self.quotas = AccountQuotas(redis, quotas=quotas_in(settings), key_quotas=key_quotas_in(settings))
        self.stored_bytes = StoredBytes(redis, quotas=self.quotas)
        self.attempt_bytes = AttemptBytes(redis, quotas=self.quotas)
        most_devices, on_grown = settings.device_types_limit, self.stored_bytes.add_device_types
        self.routing = Routing(redis, compiled, most_devices=most_devices, on_grown=on_grown)
        self.wakeups = Wakeups(redis)
        self.api_keys = ApiKeys(redis, self.routing, self.wakeups)
        self.audit = AuditLog(redis)
        self.attempts = Attempts(redis)
        self.batches = Batches(redis, limits=limits, on_attempts=self.attempt_bytes.grew)
        self.parallel_batches = ParallelBatches(redis, limits=limits, on_attempts=self.attempt_bytes.grew)
        self.channels = Channels(redis, self.routing, self.wakeups)
        self.account_channels = AccountChannels(redis, self.routing, self.wakeups, channels=self.channels)
        self.channel_pages = ChannelPages(redis, self.account_channels)
        self.client_certificates = ClientCertificates(redis, self.wakeups)
        self.due_channels = DueChannels(redis)
        self.due_webhooks = DueWebhooks(redis, instance=self.instance)
        self.fetches = Fetches(redis, limits=limits)
        ttl_ms = round(settings.heartbeat_ttl_s * 1000)
        self.heartbeat = Heartbeat(redis, instance=self.instance, ttl_ms=ttl_ms)
        self.idempotency = Idempotency(redis, most_responses=settings.idempotency_keys_limit)
        self.leases = Leases(redis)
        self.memory = RedisMemory(redis)
        self.names = Names(redis)
        self.native_tokens = NativeTokens(TokenKeys(redis))
        self.tickets = Tickets(redis)
        self.principals = Principals(self.api_keys)
        self.queues = Queues(redis, limits=limits)
        self.receipts = Receipts(redis)
        self.replicas = Replicas(redis)
        self.rounds = Rounds(redis)
        self.sessions = Sessions(redis, self.routing, self.wakeups, encode=encode_patterns)
        self.streams = Streams(redis, self.routing, limits=_stream_limits(settings))
        self.stream_reads = StreamReads(redis)
        self.signing_secrets = SigningSecrets(redis)
        self.account_deletion = AccountDeletion(
            redis,
            api_keys=self.api_keys,
            channels=self.channels,
            sessions=self.sessions,
            streams=self.streams,
            token_keys=self.native_tokens.keys,
        )
        self.replays = Replays(redis, self.queues, limits=limits)
        self.webhooks = Webhooks(redis, self.wakeups)
        self.webhook_notices = WebhookNotices(redis)
        self.rates = Rates(self.quotas)
        self.for_publishing = PublishStores(
            *(self.routing, self.queues, self.sessions, self.receipts),
            rates=self.rates,
            stored_bytes=self.stored_bytes,
            streams=self.streams,
        )


def publishing_of(
    stores: Stores, *, on_credentials_version: Callable[[bytes, float], None] = lambda *_: None
) -> Publishing:
    """What a service publishes with. It costs nothing before it is used."""
    publisher = Publisher(stores.for_publishing, on_credentials_version=on_credentials_version)
    return Publishing(publisher, IdempotentRequests(stores.idempotency), stores.stored_bytes)


def quotas_in(settings: Settings) -> Quotas:
    """The installation's quotas of an account."""
    return Quotas(
        events_per_s=settings.quota_events_per_s,
        bytes_per_s=settings.quota_bytes_per_s,
        copies_per_s=settings.quota_copies_per_s,
        burst_s=settings.quota_burst_s,
        sockets=settings.quota_sockets,
        channels=settings.quota_channels,
        bindings=settings.quota_bindings,
        stored_bytes=settings.quota_stored_bytes,
    )


def key_quotas_in(settings: Settings) -> KeyQuotas:
    """The installation's quotas of an API key."""
    return KeyQuotas(events_per_s=settings.key_quota_events_per_s, bytes_per_s=settings.key_quota_bytes_per_s)


def build_outbound(settings: Settings) -> Outbound:
    """Calls to customers' URLs. Enter it before use. Raises OSError when a certificate's file is unusable."""
    return Outbound(
        policy=AddressPolicy(settings.allow_private_callbacks),
        timeout_s=settings.callback_timeout_s,
        client_cert=settings.callback_client_cert,
        client_key=settings.callback_client_key,
        ca=settings.callback_ca,
        proxy=settings.egress_proxy,
    )


def jobs_redis(settings: Settings, client: Redis) -> AbstractAsyncContextManager[Redis]:
    """The Redis of the job queue: the one at JOBS_REDIS_URL, else `client`."""
    url = settings.jobs_redis_url
    return nullcontext(client) if url is None else connect(url)
