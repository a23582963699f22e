"""The table of bindings: listing, and translation to topics and keys."""

import pytest

from shared.model import topics
from shared.wire.kazoo.bindings import listing, parse_binding
from tests.wire.kazoo.client import OWN, Client

DATABASE = "account%2Faa%2Faa%2F" + "a" * 28
MONTHLY = f"{DATABASE}-202602"


def test_listing() -> None:
    documents = (
        *("account", "callflow", "device", "faxbox", "media", "user", "vmbox"),
        *("fax", "mailbox_message", "call_recording"),
    )
    assert list(listing().items()) == [
        (
            "call",
            [
                "call.CHANNEL_CREATE.{CALL_ID}",
                "call.CHANNEL_ANSWER.{CALL_ID}",
                "call.CHANNEL_DESTROY.{CALL_ID}",
                "call.CHANNEL_HOLD.{CALL_ID}",
                "call.CHANNEL_UNHOLD.{CALL_ID}",
                "call.CHANNEL_BRIDGE.{CALL_ID}",
                "call.PARK_PARKED.{CALL_ID}",
                "call.PARK_RETRIEVED.{CALL_ID}",
                "call.PARK_ABANDONED.{CALL_ID}",
            ],
        ),
        ("conference", ["conference.event.{CONFERENCE_ID}.{CALL_ID}", "conference.command.{CONFERENCE_ID}"]),
        ("fax", ["fax.status.{FAX_ID}", "fax.object.{ACTION}"]),
        (
            "object",
            [
                f"object.{action}.{document}"
                for action in ("doc_created", "doc_edited", "doc_deleted")
                for document in documents
            ],
        ),
    ]


def test_listed_bindings_are_accepted() -> None:
    for text in (text for texts in listing().values() for text in texts):
        binding = parse_binding(text)
        assert binding is not None
        assert binding.requested == text


# binding; topic of an event; subscription_key; routing_key; name
TRANSLATED = [
    (
        "call.CHANNEL_CREATE.*",
        "call.CHANNEL_CREATE.c1",
        f"call.{OWN}.CHANNEL_CREATE.*",
        f"call.{OWN}.CHANNEL_CREATE.c1",
        "CHANNEL_CREATE",
    ),
    (
        "call.*.c1",
        "call.PARK_PARKED.c1",
        f"call.{OWN}.PARK_PARKED.c1",
        f"call.{OWN}.PARK_PARKED.c1",
        "PARK_PARKED",
    ),
    (
        "call.CHANNEL_CREATE.#",
        "call.CHANNEL_CREATE.a.b",
        f"call.{OWN}.CHANNEL_CREATE.#",
        f"call.{OWN}.CHANNEL_CREATE.a.b",
        "CHANNEL_CREATE",
    ),
    (
        "call.CHANNEL_CREATE.a%2Eb",
        "call.CHANNEL_CREATE.a%2Eb",
        f"call.{OWN}.CHANNEL_CREATE.a%2Eb",
        f"call.{OWN}.CHANNEL_CREATE.a%2Eb",
        "CHANNEL_CREATE",
    ),
    (
        "conference.event.room.*",
        "conference.event.lock.room.c1",
        f"conference.event.*.{OWN}.room.*",
        f"conference.event.lock.{OWN}.room.c1",
        "event",
    ),
    (
        "conference.event.*.room.c1",
        "conference.event.lock.room.c1",
        f"conference.event.*.{OWN}.room.c1",
        f"conference.event.lock.{OWN}.room.c1",
        "event",
    ),
    (
        "conference.event.lock.room.*",
        "conference.event.lock.room.c1",
        f"conference.event.lock.{OWN}.room.*",
        f"conference.event.lock.{OWN}.room.c1",
        "event",
    ),
    (
        "conference.command.room",
        "conference.command.room",
        "conference.command.room",
        "conference.command.room",
        "command",
    ),
    ("fax.status.*", "fax.status.f1", f"fax.status.{OWN}.*", f"fax.status.{OWN}.f1", "status"),
    (
        "fax.object.doc_created",
        "object.doc_created.fax.f1",
        f"doc_created.{MONTHLY}.fax.*",
        f"doc_created.{MONTHLY}.fax.f1",
        "doc_created",
    ),
    (
        "object.doc_created.user",
        "object.doc_created.user.u1",
        f"doc_created.{DATABASE}.user.*",
        f"doc_created.{DATABASE}.user.u1",
        "doc_created",
    ),
    (
        "object.*.user",
        "object.doc_deleted.user.u1",
        f"*.{DATABASE}.user.*",
        f"doc_deleted.{DATABASE}.user.u1",
        "doc_deleted",
    ),
    (
        "object.*.*",
        "object.doc_edited.mailbox_message.m1",
        f"*.{MONTHLY}.*.*",
        f"doc_edited.{MONTHLY}.mailbox_message.m1",
        "doc_edited",
    ),
]


@pytest.mark.parametrize(("binding", "topic", "subscription_key", "routing_key", "name"), TRANSLATED)
def test_frame_of_a_matching_event(
    binding: str, topic: str, subscription_key: str, routing_key: str, name: str
) -> None:
    client = Client()
    client.subscribe(binding)

    assert client.event_frames(topic, {"a": 1}) == [
        {
            "action": "event",
            "subscribed_key": binding,
            "subscription_key": subscription_key,
            "name": name,
            "routing_key": routing_key,
            "data": {"a": 1},
        }
    ]
    assert client.event_frames(topic, account="b" * 32) == []


@pytest.mark.parametrize("kind", ["dialog", "mwi_updates", "update"])
def test_presence_bindings_are_returned_without_module(kind: str) -> None:
    client = Client()
    assert client.subscribe(f"presence.{kind}.c1")["subscribed"] == [f"{kind}.c1"]

    [frame] = client.event_frames(f"presence.{kind}.c1")
    assert frame["subscribed_key"] == f"{kind}.c1"
    assert frame["subscription_key"] == frame["routing_key"] == f"{kind}.{OWN}.c1"
    assert client.done("unsubscribe", {"binding": f"presence.{kind}.c1"})["subscriptions"] == []


def test_keys_for_every_account() -> None:
    client = Client()
    data = {"account_id": "*", "bindings": ["call.*.*", "object.*.fax"]}
    client.done("subscribe", data, token="master-token")

    [call] = client.event_frames("call.CHANNEL_HOLD.1")
    [document] = client.event_frames("object.doc_created.fax.1")
    assert (call["subscription_key"], document["subscription_key"]) == ("call.*.CHANNEL_HOLD.*", "*.*.fax.*")
    assert call["routing_key"] == f"call.{OWN}.CHANNEL_HOLD.1"


NOT_MATCHING = [
    ("call.CHANNEL_CREATE.*", "call.CHANNEL_ANSWER.1"),
    ("call.CHANNEL_CREATE.*", "call.CHANNEL_CREATE"),
    ("call.CHANNEL_CREATE.*", "call.CHANNEL_CREATE.a.b"),
    ("conference.event.room.*", "conference.event.lock.hall.c1"),
    ("conference.event.lock.room.*", "conference.event.unlock.room.c1"),
    ("conference.command.room", "conference.command.hall"),
    ("fax.object.doc_created", "object.doc_edited.fax.1"),
    ("object.*.user", "object.doc_created.device.1"),
    ("object.*.*", "object.doc_created.user"),
]


@pytest.mark.parametrize(("binding", "topic"), NOT_MATCHING)
def test_other_events_do_not_match(binding: str, topic: str) -> None:
    client = Client()
    client.subscribe(binding)

    assert client.event_frames(topic) == []


TOPICS = ("foo.bar.zot", "foo.quux.zot", "foo.bar.quux.zot", "foo.zot", "foo", "xap")
VECTORS = {
    "#": "TTTTTT",
    "foo.*.zot": "TTFFFF",
    "foo.#.zot": "TTTTFF",
    "*.bar.#": "TFTFFF",
    "*": "FFFFTT",
    "#.tow": "FFFFFF",
    "#.quux.zot": "FTTFFF",
    "xap.#": "FFFFFT",
    "#.*": "TTTTTT",
    "#.bar.*": "TFFFFF",
}
PAIRS = [
    ("#.A.*", "A.a.A.a", True),
    ("foo.#.*", "foo", False),
    ("#.6.*.1.4.*", "6.a.a.6.a.1.4.a", True),
    ("*.u.*.7.7.#", "i.u.e.7.7.7.a", True),
    ("#.c.#.c.#", "c.c", True),
    ("#.Z.*.9.0.#", "1.Z.7.9.0.9.a.0", True),
    ("W0.*.m.m.#", "W0.m.m.m.5", True),
]


@pytest.mark.parametrize(("pattern", "row"), VECTORS.items())
def test_topics_match_as_in_kazoo(pattern: str, row: str) -> None:
    assert "".join("T" if topics.matches(pattern, topic) else "F" for topic in TOPICS) == row


@pytest.mark.parametrize(("pattern", "topic", "is_match"), PAIRS)
def test_topics_match_as_in_kazoo_in_harder_cases(pattern: str, topic: str, is_match: bool) -> None:
    assert topics.matches(pattern, topic) is is_match
