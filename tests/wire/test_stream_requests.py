"""The query of a stream request: topics, where to begin, and the id to come back with."""

from urllib.parse import urlencode

import pytest

from shared.model.errors import Invalid
from shared.model.streams import Mark, Start
from shared.wire.stream_ids import Position, id_of
from shared.wire.stream_requests import stream_request

MARK = Mark("ep", "5-1")
ID = id_of("a", "ep", "5-1").decode()
OTHER = id_of("a", "ep", "6-0").decode()


def query(*topics: str, **more: str) -> bytes:
    return urlencode([*(("topic", topic) for topic in topics), *more.items()]).encode()


@pytest.mark.parametrize(
    ("text", "header", "since"),
    [
        (query("a"), "", {"a": Start.LATEST}),
        (query("a", "b*", **{"from": "earliest", "x": "1"}), "", {"a": Start.EARLIEST, "b*": Start.EARLIEST}),
        (query("a"), ID, {"a": MARK}),
        (query("a", last_event_id=ID), "", {"a": MARK}),
        (query("a", last_event_id=""), "", {"a": Start.LATEST}),
        # The header is the newer one.
        (query("a", last_event_id=OTHER), ID, {"a": MARK}),
        # An id of its own decides, whatever `from` says.
        (query("a", **{"from": "earliest"}), ID, {"a": MARK}),
        ("topic=caf%C3%A9+au".replace("+au", "").encode(), "", {"caf\u00e9": Start.LATEST}),
        (b"topic=a%2Bb", "", {"a+b": Start.LATEST}),
    ],
)
def test_where_a_reader_begins(text: bytes, header: str, since: dict[str, Mark | Start]) -> None:
    found = stream_request(text, last_event_id=header)
    assert found.since == since
    assert found.topics == list(since)


@pytest.mark.parametrize("given", ["garbage", ID + "x", id_of("b", "ep", "5-1").decode(), "A" * 5000])
def test_an_id_of_something_else_is_a_mark_that_no_stream_has(given: str) -> None:
    found = stream_request(query("a", last_event_id=given), last_event_id="").since
    assert found == stream_request(query("a"), last_event_id=given).since
    assert found == {"a": Mark("?", "0-0")}


def test_a_topic_that_had_not_begun_begins_as_without_an_id() -> None:
    position = Position(["a", "b"])
    position.move("b", "ep", "5-1")
    found = stream_request(query("a", "b", **{"from": "earliest"}), last_event_id=position.id().decode())
    assert found.since == {"a": Start.EARLIEST, "b": MARK}


@pytest.mark.parametrize(
    ("text", "field", "rule"),
    [
        (b"", "topic", "must be given 1 to 16 times"),
        (query(*map(str, range(17))), "topic", "must be given 1 to 16 times"),
        (query("a", "a"), "topic", "names a topic twice"),
        (query(""), "topic", "must be a string of 1 to 255 characters"),
        (query("x" * 256), "topic", "must be a string of 1 to 255 characters"),
        (query("a b"), "topic", "must have no blanks or control characters"),
        (query("a\0"), "topic", "must have no blanks or control characters"),
        (query("a.*"), "topic", "must be exact: streams are read by topic, without * and #"),
        (query("#"), "topic", "must be exact: streams are read by topic, without * and #"),
        (query("device.x"), "topic", "begins with the word device: such topics have no stream"),
        (query("system"), "topic", "begins with the word system: such topics have no stream"),
        (query("a", **{"from": "5-1"}), "from", "must be earliest or latest"),
        (query("a", **{"from": ""}), "from", "must be earliest or latest"),
    ],
)
def test_what_cannot_be_read_is_refused(text: bytes, field: str, rule: str) -> None:
    with pytest.raises(Invalid) as refused:
        stream_request(text, last_event_id="")
    [(name, message)] = refused.value.fields
    assert (name, message) == (field, rule)
