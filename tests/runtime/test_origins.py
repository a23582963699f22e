"""Pages of listed origins and of this host may open a WebSocket, and so may clients that are no pages."""

import pytest

from shared.runtime.http.origins import may_connect

LISTED = ("https://app.example", "http://localhost:3000")


@pytest.mark.parametrize(
    ("origin", "host", "origins", "may"),
    [
        # Any page, and no page at all.
        ("https://other.example", "notify.example", ("*",), True),
        ("null", "notify.example", ("*",), True),
        (None, "notify.example", LISTED, True),
        (None, "notify.example", (), True),
        # Listed, in any case.
        ("https://app.example", "notify.example", LISTED, True),
        ("HTTPS://App.Example", "notify.example", LISTED, True),
        ("http://localhost:3000", "notify.example", LISTED, True),
        # Another scheme, port or host than the listed ones.
        ("http://app.example", "notify.example", LISTED, False),
        ("https://app.example:8443", "notify.example", LISTED, False),
        ("https://app.example.evil.example", "notify.example", LISTED, False),
        ("https://evilapp.example", "notify.example", LISTED, False),
        ("null", "notify.example", LISTED, False),
        ("", "notify.example", LISTED, False),
        ("*", "notify.example", LISTED, False),
        # Of the host itself, whatever is listed; default ports may be left out on either side.
        ("https://notify.example", "notify.example", (), True),
        ("https://notify.example", "Notify.Example", LISTED, True),
        ("http://127.0.0.1:8001", "127.0.0.1:8001", (), True),
        ("http://[::1]:8001", "[::1]:8001", (), True),
        ("https://notify.example", "notify.example:443", (), True),
        ("http://notify.example:80", "notify.example", (), True),
        # Another port or scheme of the host is another origin.
        ("http://127.0.0.1:8002", "127.0.0.1:8001", (), False),
        ("https://notify.example:80", "notify.example", (), False),
        ("http://notify.example", "notify.example:443", (), False),
        ("ftp://notify.example", "notify.example", (), False),
        ("notify.example", "notify.example", (), False),
        ("https://", "", (), False),
    ],
)
def test_an_origin_is_allowed_or_not(
    origin: str | None, host: str, origins: tuple[str, ...], *, may: bool
) -> None:
    headers = [(b"host", host.encode()), (b"upgrade", b"websocket")]
    if origin is not None:
        headers.append((b"origin", origin.encode()))

    assert may_connect(headers, origins) is may


def test_every_origin_that_is_named_must_be_allowed() -> None:
    headers = [(b"origin", b"https://app.example"), (b"origin", b"https://other.example")]

    assert not may_connect(headers, LISTED)


def test_without_a_host_no_origin_is_its_own() -> None:
    assert not may_connect([(b"origin", b"https://notify.example")], ())
