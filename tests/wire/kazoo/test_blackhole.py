"""Transcripts of Blackhole conversations: frames of one client, and the replies."""

import re
from typing import Any

import orjson
import pytest

from shared.wire.kazoo.blackhole import Conversation, Reply, SaveSession
from tests.wire.kazoo.client import CHILD, MASTER_TOKEN, OWN, PRINCIPALS, STRANGER, TOKEN, Client

CREATED = "call.CHANNEL_CREATE.*"
PARKED = "call.PARK_PARKED.*"
REFUSED_BY_DATA: list[tuple[Any, str]] = [
    ({}, "missing required keys in data object"),
    ([], "missing required keys in data object"),
    ("call.*.*", "missing required keys in data object"),
    (7, "missing required keys in data object"),
    ({"account_id": OWN}, "missing required keys : binding"),
    ({"binding": ""}, "missing required keys : binding"),
    ({"binding": 5}, "missing required keys : binding"),
    ({"bindings": []}, "missing required keys : binding"),
    ({"bindings": [CREATED, None]}, "missing required keys : binding"),
    ({"account_id": "", "binding": CREATED}, "missing required keys : account_id"),
    ({"account_id": 5, "binding": CREATED}, "missing required keys : account_id"),
    ({"account_id": "", "binding": ""}, "missing required keys : account_id, binding"),
]
REFUSED_BY_BINDING = [
    ("call.CHANNEL_BURN.*", "event CHANNEL_BURN not supported"),
    ("call.#.*", "event # not supported"),
    ("call..x", "event  not supported"),
    ("presence.nothing.x", "event nothing not supported"),
    ("presence.*.x", "event * not supported"),
    ("object.doc_burnt.user", "event doc_burnt.user not supported"),
    ("object.doc_created.toaster", "event doc_created.toaster not supported"),
    ("object.doc_burnt.*", "event doc_burnt.* not supported"),
    ("object.*.toaster", "event *.toaster not supported"),
    ("call.CHANNEL_CREATE", "invalid format for call subscription : CHANNEL_CREATE"),
    ("call.#", "invalid format for call subscription : #"),
    ("call", "invalid format for call subscription : "),
    ("call.CHANNEL_CREATE.a.b", "invalid format for call subscription : CHANNEL_CREATE, a, b"),
    ("call.CHANNEL_CREATE.a b", "invalid format for call subscription : CHANNEL_CREATE, a b"),
    ("call.CHANNEL_CREATE.a\nb", "invalid format for call subscription : CHANNEL_CREATE, a\nb"),
    ("conference.event.room", "invalid format for conference subscription : event, room"),
    ("conference.other.room", "invalid format for conference subscription : other, room"),
    ("fax.status", "invalid format for fax subscription : status"),
    ("fax.other.x", "invalid format for fax subscription : other, x"),
    ("object.doc_created", "invalid format for object subscription : doc_created"),
    ("object.doc_created.user.x", "invalid format for object subscription : doc_created, user, x"),
    ("presence.dialog", "invalid format for presence subscription : dialog"),
    ("conference.event.*.*", "ConferenceId required"),
    ("conference.event.#.*", "ConferenceId required"),
    ("conference.command.*", "ConferenceId required"),
    ("conference.event.burning.room.*", "Unsupported conference event burning"),
    ("conference.event.lock.*.*", "unauthorized wildcard for conference id"),
    ("foo.bar", "no available subscriptions to requested binding"),
    ("doc_edited.*.user.*", "no available subscriptions to requested binding"),
    ("#", "no available subscriptions to requested binding"),
]


@pytest.mark.parametrize("action", ["subscribe", "unsubscribe", "ping", "noop", "nonsense"])
def test_unauthenticated_frames_are_refused(action: str) -> None:
    client = Client()
    data = {"binding": CREATED}

    assert client.refused(action, data, token="") == ["authentication token required"]
    assert client.refused(action, data, token=5) == ["authentication token required"]
    assert client.refused(action, data, token="wrong") == ["failed to authenticate token wrong"]
    assert client.saved == []


def test_key_without_scope_receive_is_refused() -> None:
    assert Client().refused("ping", token="publisher") == ["the API key lacks the scope receive"]


@pytest.mark.parametrize(("data", "error"), REFUSED_BY_DATA)
def test_incomplete_data_is_refused(data: Any, error: str) -> None:
    assert Client().refused("subscribe", data) == [error]
    assert Client().refused("unsubscribe", data) == [error]


def test_subscribing_without_data_is_refused() -> None:
    assert Client().refused("subscribe") == ["missing required keys in data object"]


@pytest.mark.parametrize(("binding", "error"), REFUSED_BY_BINDING)
def test_invalid_bindings_are_refused(binding: str, error: str) -> None:
    client = Client()

    assert client.refused("subscribe", {"account_id": OWN, "binding": binding}) == [error]
    assert client.saved == []


def test_long_bindings_are_shortened_in_the_error() -> None:
    [error] = Client().refused("subscribe", {"binding": "call.CHANNEL_CREATE." + "x" * 60_000})

    assert error.startswith("invalid format for call subscription : CHANNEL_CREATE, xxx")
    assert len(error) < 400


def test_foreign_accounts_are_refused() -> None:
    data = {"account_id": STRANGER, "binding": CREATED}

    assert Client().refused("subscribe", data) == ["unauthorized account id"]
    assert Client().refused("subscribe", data | {"account_id": "no id"}) == ["unauthorized account id"]
    assert Client().refused("subscribe", data, token=MASTER_TOKEN) == ["unauthorized account id"]


def test_every_account_needs_a_master() -> None:
    data = {"account_id": "*", "binding": CREATED}
    master = Client()

    assert Client().refused("subscribe", data) == ["unauthorized wildcard account id"]
    assert master.done("subscribe", data, token=MASTER_TOKEN)["subscribed"] == [CREATED]
    assert [each.account for each in master.saved[-1].bindings] == ["*"]
    assert len(master.event_frames("call.CHANNEL_CREATE.1", account=STRANGER)) == 1


def test_every_conference_needs_a_master() -> None:
    assert Client().subscribe("conference.event.lock.*.*", token=MASTER_TOKEN)["subscribed"]


def test_the_first_error_is_reported() -> None:
    """Format before account, account before module."""
    client = Client()

    assert client.refused("subscribe", {"account_id": STRANGER, "binding": "call.#"}) == [
        "invalid format for call subscription : #"
    ]
    assert client.refused("subscribe", {"account_id": STRANGER, "binding": "foo.bar"}) == [
        "unauthorized account id"
    ]


def test_rate_limit_refills_every_second() -> None:
    client = Client()
    for _ in range(100):
        client.done("ping")

    assert client.refused("ping", request_id="r") == ["rate limiting threshold hit for session-1!"]
    client.now_s = 0.9
    assert client.refused("ping") == ["rate limiting threshold hit for session-1!"]
    client.now_s = 1.0
    assert [client.request("ping")["status"] for _ in range(11)] == ["success"] * 10 + ["error"]
    client.now_s = 3600.0
    assert [client.request("ping")["status"] for _ in range(101)] == ["success"] * 100 + ["error"]


def test_refused_frames_count_against_the_rate_limit() -> None:
    client = Client()
    for _ in range(100):
        client.send("{")

    assert client.refused("ping") == ["rate limiting threshold hit for session-1!"]


@pytest.mark.parametrize(
    "frame", ["", "{", "nonsense", "[]", "5", "null", '"ping"', "[" * 5000, '{"a":"\\ud800"}']
)
def test_frames_that_are_no_json_object(frame: str) -> None:
    reply = Client().send(frame)

    assert orjson.loads(reply) == {
        "action": "reply",
        "request_id": "generated-0",
        "status": "error",
        "data": {"errors": ["invalid JSON"]},
    }


@pytest.mark.parametrize(
    ("given", "returned"),
    [
        ("r-1", "r-1"),
        (17, "17"),
        (1.5, "1.5"),
        (True, "true"),
        (None, "generated-0"),
        ("", "generated-0"),
        ([1], "generated-0"),
        ({}, "generated-0"),
    ],
)
def test_request_id_is_returned(given: Any, returned: str) -> None:
    assert Client().request("ping", request_id=given)["request_id"] == returned


def test_generated_request_ids_are_32_hex_characters() -> None:
    reply = Conversation("s", now_s=0).receive("{}", now_s=0)

    assert isinstance(reply, Reply)
    assert re.fullmatch("[0-9a-f]{32}", orjson.loads(reply.text)["request_id"])


def test_ping_and_unknown_actions() -> None:
    client = Client()

    assert client.done("ping") == {"response": "pong"}
    assert client.done("noop") == client.done("") == client.done("jump") == {}
    assert client.done("ping", action_is_ignored=1) == {"response": "pong"}


def test_subscribed_and_subscriptions_are_both_the_whole_list() -> None:
    client = Client()

    assert client.subscribe(CREATED) == {"subscribed": [CREATED], "subscriptions": [CREATED]}
    both = [CREATED, PARKED]
    assert client.subscribe(PARKED) == {"subscribed": both, "subscriptions": both}
    assert client.subscribe(CREATED, account=OWN) == {"subscribed": both, "subscriptions": both}


def test_later_frames_need_no_token() -> None:
    client = Client()
    client.done("ping")

    assert client.done("ping", token="") == client.done("ping", token="wrong") == {"response": "pong"}


def test_handshake_authentication_is_enough() -> None:
    client = Client(principal=PRINCIPALS[TOKEN])

    assert client.done("ping", token="") == {"response": "pong"}
    assert [session.principal for session in client.saved] == [PRINCIPALS[TOKEN]]


def test_a_refused_frame_does_not_authenticate() -> None:
    client = Client()

    client.refused("subscribe", {"binding": "foo.bar"})

    assert client.saved == []
    assert client.refused("ping", token="") == ["authentication token required"]


def test_first_ping_saves_the_session_once() -> None:
    client = Client()
    client.done("ping")
    client.done("ping")

    assert [(each.principal, each.bindings) for each in client.saved] == [(PRINCIPALS[TOKEN], ())]


def test_several_bindings_in_one_frame() -> None:
    client = Client()

    assert client.done("subscribe", {"bindings": [CREATED, PARKED, CREATED]})["subscribed"] == [
        CREATED,
        PARKED,
    ]
    assert client.done("subscribe", {"binding": "fax.status.*", "bindings": [PARKED]})["subscribed"] == [
        CREATED,
        PARKED,
        "fax.status.*",
    ]


def test_one_invalid_binding_refuses_all() -> None:
    client = Client()
    bad = {"bindings": [CREATED, "call.A.*", "foo.bar", "call.B.*", "call.A.*"]}

    assert client.refused("subscribe", bad) == ["event A not supported", "event B not supported"]
    assert client.refused("subscribe", {"bindings": [CREATED, "foo.bar"]}) == [
        "no available subscriptions to requested binding"
    ]
    assert client.event_frames("call.CHANNEL_CREATE.1") == []


def test_limit_of_subscriptions() -> None:
    client = Client()
    for part in range(4):
        client.done("subscribe", {"bindings": [f"call.*.{part}-{number}" for number in range(256)]})

    too_many = ["too many subscriptions : 1024 at most"]
    assert client.refused("subscribe", {"binding": CREATED}) == too_many
    assert client.subscribe("call.*.3-255")
    assert client.refused("unsubscribe", {"bindings": [CREATED] * 1025}) == too_many


def test_unsubscribe() -> None:
    client = Client()
    client.done("subscribe", {"bindings": [CREATED, PARKED]})

    assert client.done("unsubscribe", {"binding": CREATED}) == {
        "unsubscribed": [CREATED],
        "subscribed": [PARKED],
        "subscriptions": [PARKED],
    }
    assert client.event_frames("call.CHANNEL_CREATE.1") == []
    assert client.done("unsubscribe", {"binding": CREATED})["unsubscribed"] == [CREATED]
    assert client.refused("unsubscribe", {"binding": "call.A.*"}) == ["event A not supported"]


def test_unsubscribe_needs_no_authorization() -> None:
    client = Client()
    client.subscribe(CREATED)

    assert client.done("unsubscribe", {"account_id": STRANGER, "binding": CREATED}) == {
        "unsubscribed": [CREATED],
        "subscribed": [CREATED],
        "subscriptions": [CREATED],
    }


def test_unsubscribe_without_data_removes_all() -> None:
    client = Client()
    client.subscribe(CREATED)
    client.subscribe(PARKED, account=CHILD)

    assert client.done("unsubscribe") == {
        "unsubscribed": [CREATED, PARKED],
        "subscribed": [],
        "subscriptions": [],
    }
    assert client.saved[-1].bindings == ()
    assert client.event_frames("call.CHANNEL_CREATE.1") == []


def test_the_same_binding_for_two_accounts_is_two() -> None:
    client = Client()
    client.subscribe(CREATED, account=OWN)
    assert client.subscribe(CREATED, account=CHILD)["subscriptions"] == [CREATED]
    assert [each.account for each in client.saved[-1].bindings] == [OWN, CHILD]

    client.done("unsubscribe", {"account_id": OWN, "binding": CREATED})

    assert client.event_frames("call.CHANNEL_CREATE.1") == []
    assert len(client.event_frames("call.CHANNEL_CREATE.1", account=CHILD)) == 1


@pytest.mark.parametrize(
    ("beside", "inside"), [({"name": "n"}, {}), ({}, {"name": "n"}), ({"name": "n"}, {"name": "m"})]
)
def test_name_beside_data_or_in_it(beside: dict[str, Any], inside: dict[str, Any]) -> None:
    client = Client()
    client.done("subscribe", {"binding": CREATED, **inside}, **beside)
    assert client.saved[-1].name == "n"

    client.done("ping")
    assert client.saved[-1].name == "", "each frame sets the name anew"


def test_metadata() -> None:
    client = Client()
    client.done("ping", metadata={"Who": ["I"], "n": None})

    assert client.saved[-1].metadata == b'{"Who":["I"],"n":null}'
    assert client.refused("ping", metadata="x" * 4095) == ["metadata is too large : 4096 bytes at most"]
    assert client.refused("ping", name="x" * 256) == ["name is too long : 255 characters at most"]
    reply = client.send(b'{"action":"ping","metadata":' + b"[" * 400 + b"]" * 400 + b"}")
    assert orjson.loads(reply)["data"]["errors"] == ["metadata is nested too deeply"]


def test_a_failed_write_changes_nothing() -> None:
    client = Client()
    client.subscribe(PARKED)
    frame = orjson.dumps({"action": "subscribe", "data": {"binding": CREATED}})

    reply = client.send(frame, store_fails=True)

    assert orjson.loads(reply)["data"] == {"errors": ["temporarily unavailable, try again"]}
    assert client.event_frames("call.CHANNEL_CREATE.1") == []
    # Half of it may have been written: the next success writes all.
    written = len(client.saved)
    client.done("ping")
    assert [[each.requested for each in session.bindings] for session in client.saved[written:]] == [[PARKED]]


def test_events_match_while_the_write_is_in_progress() -> None:
    conversation = Conversation("s", now_s=0, principal=PRINCIPALS[TOKEN])
    frame = orjson.dumps({"action": "subscribe", "data": {"binding": CREATED}})
    effect = conversation.receive(frame, now_s=0)
    client = Client()
    client.conversation = conversation

    assert isinstance(effect, SaveSession)
    assert len(client.event_frames("call.CHANNEL_CREATE.1")) == 1
