"""Names in Redis: which are permanent, and that no publisher can forge one."""

import pytest

from shared.store import keyspace

ID = "0123456789abcdef0123456789abcdef"


@pytest.mark.parametrize(
    "name",
    [
        keyspace.api_key(ID),
        keyspace.channel(ID),
        keyspace.queue(ID),
        keyspace.account(ID),
        keyspace.routing(ID),
        keyspace.routing(keyspace.EVERY),
        keyspace.session(ID),
        keyspace.sessions(ID),
        keyspace.LAST_SEEN,
        keyspace.SIGNING_KEY,
        keyspace.WEBHOOKS,
    ],
)
def test_permanent_names(name: str) -> None:
    assert keyspace.PERMANENT.fullmatch(name.encode())


@pytest.mark.parametrize(
    "name",
    [
        keyspace.heartbeat("edge-1/b00t"),
        keyspace.routing_changes(ID),
        keyspace.receipts(ID),
        keyspace.receipt(ID, f"{{{ID}}}:queue"),
        keyspace.pushes(ID),
        *keyspace.device_types(ID),
        keyspace.deliveries(ID),
        keyspace.attempts(ID),
        keyspace.running(ID, keyspace.idempotency_field("key")),
        f"{keyspace.idempotency_prefix(ID)}82000",
        "anything",
        f"{{{ID}}}:keys",
        f"{{{ID}}}:lease",
        f"x{{{ID}}}:key",
        f"{{{ID[:-1]}}}:key",
        f"{{{ID}}}:key\n",
        "{replicas}:last-seen:x",
    ],
)
def test_other_names_need_a_ttl(name: str) -> None:
    assert not keyspace.PERMANENT.fullmatch(name.encode())


def test_event_id_cannot_make_a_receipt_look_like_another_name() -> None:
    """A scan over all channels would find it."""
    assert not keyspace.receipt(ID, f"{{{ID}}}:channel").endswith(":channel")
