"""Audit entries: who changed what of an account, when, and from where."""

from dataclasses import dataclass
from enum import StrEnum


class Action(StrEnum):
    ACCOUNT_CREATED = "account.created"
    ACCOUNT_CHANGED = "account.changed"
    ACCOUNT_DELETED = "account.deleted"
    API_KEY_CREATED = "api-key.created"
    API_KEY_ROTATED = "api-key.rotated"
    API_KEY_REVOKED = "api-key.revoked"
    CHANNEL_CREATED = "channel.created"
    CHANNEL_CHANGED = "channel.changed"
    CHANNEL_DELETED = "channel.deleted"
    CHANNEL_PAUSED = "channel.paused"
    CHANNEL_RESUMED = "channel.resumed"
    CHANNEL_PURGED = "channel.purged"
    CLIENT_CERTIFICATE_PUT = "client-certificate.put"
    CLIENT_CERTIFICATE_DELETED = "client-certificate.deleted"
    SIGNING_CREATED = "signing-secret.created"
    SIGNING_IMPORTED = "signing-secret.imported"
    SIGNING_ENDED = "signing-secret.ended"
    TOKENS_KEY_CREATED = "token-key.created"
    TOKENS_KEY_IMPORTED = "token-key.imported"
    TOKENS_KEY_DELETED = "token-key.deleted"
    STREAMS_PUT = "streams.put"
    STREAM_PURGED = "stream.purged"
    EVENT_RESENT = "channel.event-resent"
    REPLAY_BEGUN = "channel.replay-begun"
    REPLAY_CANCELLED = "channel.replay-cancelled"


@dataclass(frozen=True, slots=True)
class Change:
    """`by` is the id of an API key, '' for the operator; `target` the id of what was changed, `name` its
    name.

    `address` is the client's, '' where it is unknown. `request_id` is that of the request log.
    """

    action: Action
    by: str
    target: str
    name: str = ""
    address: str = ""
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """A change, and its place in the log; `at_ms` is by Redis' clock."""

    entry_id: str
    at_ms: int
    change: Change
