"""An upgrade request, judged and answered; tests/stories/test_malformed_upgrades.py asks over the wire."""

import pytest

from shared.runtime.websocket.upgrade import accepted, fault_in, subprotocols_in

KEY = (b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ==")
VERSION = (b"sec-websocket-version", b"13")
UPGRADE = ((b"connection", b"keep-alive, Upgrade"), (b"upgrade", b"WebSocket"))
IN_ORDER = (*UPGRADE, VERSION, KEY)


def test_one_in_order_has_no_fault() -> None:
    assert fault_in(b"/socket?a=b", IN_ORDER) is None


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([*IN_ORDER, (b"origin", b"http://a"), (b"origin", b"http://b")], 400),
        ([*IN_ORDER, (b"upgrade", b"h2c")], 426),
        ([*IN_ORDER, (b"upgrade", b"=")], 400),
        ([*IN_ORDER, *[(b"x", b"y")] * 124], None),
        ([*IN_ORDER, *[(b"x", b"y")] * 125], 431),
        ([*IN_ORDER, (b"x", b"y" * 8191)], None),
        ([*IN_ORDER, (b"x", b"y" * 8192)], 431),
        ([*UPGRADE, VERSION, (KEY[0], b" " + KEY[1])], None),
    ],
)
def test_others_are_told_by_a_status(headers: list[tuple[bytes, bytes]], status: int | None) -> None:
    fault = fault_in(b"/socket", headers)

    assert (fault and fault.status) == status


def test_a_long_or_odd_path_is_refused() -> None:
    assert fault_in(b"/" * 8193, IN_ORDER) == (431, "a header is too long, or there are too many", "")
    assert fault_in("/é".encode(), IN_ORDER) == (400, "the upgrade request is malformed", "")


def test_subprotocols_are_those_of_all_lines_with_or_without_quotes() -> None:
    lines = [(b"sec-websocket-protocol", b'"wss, pelion_ak_1"'), (b"sec-websocket-protocol", b"x")]

    assert subprotocols_in([*IN_ORDER, *lines]) == ["wss", "pelion_ak_1", "x"]


def test_the_answer_proves_that_the_key_was_read() -> None:
    lines = accepted(IN_ORDER, [(b"x-request-id", b"17")]).split(b"\r\n")

    assert lines[0] == b"HTTP/1.1 101 Switching Protocols"
    assert {b"sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", b"x-request-id: 17"} < set(lines)
    assert lines[-2:] == [b"", b""]
