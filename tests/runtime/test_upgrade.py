"""Checks of upgrade requests, and responses; tests/stories/test_malformed_upgrades.py uses a real server."""

import pytest

from shared.runtime.websocket.upgrade import accept_response, check_upgrade, subprotocols_in

KEY = (b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ==")
VERSION = (b"sec-websocket-version", b"13")
UPGRADE = ((b"connection", b"keep-alive, Upgrade"), (b"upgrade", b"WebSocket"))
VALID = (*UPGRADE, VERSION, KEY)


def test_a_valid_request() -> None:
    assert check_upgrade(b"/socket?a=b", VALID) is None


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([*VALID, (b"upgrade", b"h2c")], None),
        ([UPGRADE[0], (b"upgrade", b"h2c"), VERSION, KEY], 426),
        ([*VALID, (b"upgrade", b"=")], 400),
        ([*VALID, *[(b"x", b"y")] * 124], None),
        ([*VALID, *[(b"x", b"y")] * 125], 431),
        ([*VALID, (b"x", b"y" * 8191)], None),
        ([*VALID, (b"x", b"y" * 8192)], 431),
        ([*UPGRADE, VERSION, (KEY[0], b" " + KEY[1])], None),
    ],
)
def test_the_status_of_other_requests(headers: list[tuple[bytes, bytes]], status: int | None) -> None:
    rejection = check_upgrade(b"/socket", headers)

    assert (rejection and rejection.status) == status


def test_a_long_path_is_rejected() -> None:
    assert check_upgrade(b"/" * 8193, VALID) == (431, "a header is too long, or there are too many", "")


def test_subprotocols_of_all_lines_with_or_without_quotes() -> None:
    lines = [(b"sec-websocket-protocol", b'"wss, pelion_ak_1"'), (b"sec-websocket-protocol", b"x")]

    assert subprotocols_in([*VALID, *lines]) == ["wss", "pelion_ak_1", "x"]


def test_the_response_proves_that_the_key_was_read() -> None:
    lines = accept_response(VALID, [(b"x-request-id", b"17")]).split(b"\r\n")

    assert lines[0] == b"HTTP/1.1 101 Switching Protocols"
    assert {b"sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", b"x-request-id: 17"} < set(lines)
    assert lines[-2:] == [b"", b""]
