"""Every name, which of them may stand for ever, and which share a slot."""

from collections.abc import Callable
from functools import partial

import pytest

from shared.model.api_keys import new_id
from shared.store import keyspace

ID = "0123456789abcdef0123456789abcdef"
OF_A_CHANNEL = [keyspace.api_key, keyspace.channel, keyspace.lease, keyspace.queue]
OF_AN_ACCOUNT = [keyspace.account, keyspace.routing, keyspace.device_types]
OF_ACCOUNTS_FOR_A_WHILE = [keyspace.routing_changes]
OF_CHANNELS_FOR_A_WHILE: list[Callable[[str], str]] = [
    keyspace.receipts,
    partial(keyspace.receipt, event_id="an event"),
]


@pytest.mark.parametrize("name_of", [*OF_A_CHANNEL, *OF_AN_ACCOUNT])
def test_what_stays(name_of: object) -> None:
    assert callable(name_of)
    assert keyspace.is_permanent(name_of(new_id()).encode())


def test_last_seen_stays() -> None:
    assert keyspace.is_permanent(keyspace.LAST_SEEN.encode())


@pytest.mark.parametrize(
    "name",
    [
        keyspace.heartbeat("edge-1/b00t"),
        keyspace.wakeup("edge-1/b00t"),
        keyspace.routing_changes(ID),
        keyspace.receipts(ID),
        keyspace.receipt(ID, f"{{{ID}}}:queue"),
        "anything",
        f"{ID}:key",
        f"{{{ID}}}:keys",
        f"x{{{ID}}}:key",
        f"{{{ID[:-1]}}}:key",
        f"{{{ID}}}:key\n",
        "{replicas}:last-seen:x",
    ],
)
def test_what_does_not(name: str) -> None:
    assert not keyspace.is_permanent(name.encode())


def test_no_two_names_are_the_same() -> None:
    for_a_while = (*OF_ACCOUNTS_FOR_A_WHILE, *OF_CHANNELS_FOR_A_WHILE)
    names = [name_of(ID) for name_of in (*OF_A_CHANNEL, *OF_AN_ACCOUNT, *for_a_while)]

    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    "name_of", [*OF_A_CHANNEL, *OF_AN_ACCOUNT, *OF_ACCOUNTS_FOR_A_WHILE, *OF_CHANNELS_FOR_A_WHILE]
)
def test_what_a_script_touches_together_shares_a_slot(name_of: object) -> None:
    assert callable(name_of)
    assert name_of(ID).startswith(f"{{{ID}}}:")


def test_heartbeat_and_last_seen_share_a_slot() -> None:
    assert keyspace.heartbeat("a/b").startswith("{replicas}:")
    assert keyspace.LAST_SEEN.startswith("{replicas}:")


def test_an_events_id_cannot_make_its_receipt_look_like_another_name() -> None:
    """Whoever walks over all channels would else find one that a publisher made up."""
    name = keyspace.receipt(ID, f"{{{ID}}}:channel")

    assert not name.endswith(":channel")
