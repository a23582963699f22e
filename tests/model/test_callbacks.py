"""Rules for a callback URL and its headers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from shared.model.callbacks import (
    LONGEST,
    LONGEST_HEADERS,
    LONGEST_URL,
    MOST_HEADERS,
    Callback,
    callback,
    callback_headers,
    callback_url,
    native_callback,
)
from shared.model.errors import Invalid, TooLarge


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com",
        "https://example.com/",
        "HTTPS://Example.COM:8443/a/../b;c?d=%2f&e={f}",
        "http://example.com.:80/",
        "http://a_b.internal/x",
        "http://localhost:5000/callback",
        "http://127.0.0.1:1/",
        "http://[::1]:65535/x",
        "http://[::ffff:8.8.8.8]/",
        "http://bücher.example/ä?ö=ü",
        "http://例え。テスト/",
        "http://xn--bcher-kva.example/",
        "http://1.2.3.4.example/",
        "http://example.com?query",
        "http://example.com/a:b@c",
    ],
)
def test_valid_urls_are_unchanged(url: str) -> None:
    assert callback_url(url) == url


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", "http://"),
        ("example.com", "http://"),
        ("//example.com/", "http://"),
        ("ftp://example.com/", "http://"),
        ("file:///etc/passwd", "http://"),
        ("gopher://example.com/", "http://"),
        ("unix:///run/x", "http://"),
        ("javascript:alert(1)", "http://"),
        ("http:example.com", "http://"),
        ("http:/example.com", "http://"),
        ("http://", "host"),
        ("http:///path", "host"),
        ("http://:80/", "host"),
        ("http://?x", "host"),
        ("http://user@example.com/", "credentials"),
        ("http://user:secret@example.com/", "credentials"),
        ("http://example.com@10.0.0.1/", "credentials"),
        ("http://example.com#@10.0.0.1/", "fragment"),
        ("http://example.com/#x", "fragment"),
        ("http://example.com\\@10.0.0.1/", "backslashes"),
        ("http:\\\\example.com/", "backslashes"),
        ("http://example.com /", "blanks"),
        (" http://example.com/", "blanks"),
        ("http://example.com/\r\nHost: x", "blanks"),
        ("http://example.com/\n", "blanks"),
        ("http://exam\tple.com/", "blanks"),
        ("http://example.com/\x00", "blanks"),
        ("http://example.com/\x7f", "blanks"),
        ("http://example.com/\u2028", "blanks"),
        ("http://example.com/\u200b", "blanks"),
        ("http://example.com/\u3000", "blanks"),
        ("http://exa%6dple.com/", "host"),
        ("http://127.0.0.1%2f@x/", "credentials"),
        ("http://2130706433/", "host"),
        ("http://0x7f000001/", "host"),
        ("http://0x7f.1/", "host"),
        ("http://0X7F.0.0.1/", "host"),
        ("http://0177.0.0.1/", "host"),
        ("http://127.1/", "host"),
        ("http://127.0.1/", "host"),
        ("http://127.0.0.1./", "host"),
        ("http://017700000001/", "host"),
        ("http://256.0.0.1/", "host"),
        ("http://1.2.3.4.5/", "host"),
        ("http://example.0x1/", "host"),
        ("http://①②⑦.⓪.⓪.①/", "host"),
        ("http://127。0。0。1/", "host"),
        ("http://\uff11\uff12\uff17.0.0.1/", "host"),
        ("http://example.com℀.example/", "host"),
        ("http://[::1/", "host"),
        ("http://::1/", "host"),
        ("http://[fe80::1%25eth0]/", "host"),
        ("http://[fe80::1%eth0]/", "host"),
        ("http://[127.0.0.1]/", "host"),
        ("http://[v1.x]/", "host"),
        ("http://[::1]x/", "host"),
        ("http://a..b/", "host"),
        ("http://.a/", "host"),
        ("http://a../", "host"),
        ("http://-a/", "host"),
        ("http://a,b/", "host"),
        ("http://a b/", "blanks"),
        (f"http://{'a' * 64}/", "host"),
        (f"http://{'a.' * 130}a/", "host"),
        ("http://example.com:/", "host"),
        ("http://example.com:0/", "port"),
        ("http://example.com:65536/", "port"),
        ("http://example.com:٨٠/", "host"),
        ("http://example.com:-1/", "host"),
        ("http://example.com:80:80/", "host"),
        # Letters of both directions in one label: it has no ASCII form.
        ("http://a\u05d0/", "host"),
        # Signs that the ASCII form leaves out.
        ("http://e\ufe0fvil.example/", "host"),
        ("http://e\u115fvil.example/", "host"),
        ("http://\U000e0100/", "host"),
        ("http://example.com/" + "x" * LONGEST, "400"),
    ],
)
def test_invalid_and_ambiguous_urls_are_refused(url: str, message: str) -> None:
    with pytest.raises(Invalid, match=message) as raised:
        callback_url(url)

    assert [name for name, _ in raised.value.fields] == ["url"]
    assert "secret" not in str(raised.value)


@given(st.text(max_size=30), st.sampled_from(["http://{}/", "http://{}", "https://a{}b/", "{}"]))
def test_the_http_client_agrees_with_every_accepted_url(text: str, form: str) -> None:
    try:
        url = callback_url(form.format(text))
    except Invalid:
        return
    read = URL(url, encoded=url.isascii())
    assert read.scheme in ("http", "https")
    assert read.raw_host
    assert read.user is read.password is None
    assert not read.fragment


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {
            "Authorization": "Bearer abc",
            "Cookie": "a=b",
            "User-Agent": "x",
            "Content-Type": "application/xml",
        },
        {"X-Empty": "", "x!#$%&'*+-.^_`|~0": "a\tb c"},
    ],
)
def test_valid_headers_are_unchanged(headers: dict[str, str]) -> None:
    assert callback_headers(headers) == headers


@pytest.mark.parametrize(
    "headers",
    [
        *({name: "x"} for name in ("", "a b", "a:", "a\n", "ä", ":path", "a(b)")),
        *(
            {name: "x"}
            for name in ("Host", "content-length", "Transfer-Encoding", "Connection", "TE", "Expect")
        ),
        *(
            {name: "x"}
            for name in ("Proxy-Authorization", "proxy-x", "Upgrade", "Keep-Alive", "Content-Encoding")
        ),
        *({name: "x"} for name in ("webhook-id", "Webhook-Timestamp", "WEBHOOK-SIGNATURE", "trailer")),
        *({"X": value} for value in ("hidden\r", "hidden\nX: y", "hidden\x00", "hiddené", "hidden\x7f")),
        {"X": "a", "x": "a"},
    ],
)
def test_reserved_and_invalid_headers_are_refused(headers: dict[str, str]) -> None:
    with pytest.raises(Invalid) as raised:
        callback_headers(headers)

    assert [name for name, _ in raised.value.fields] == ["headers"]
    assert "hidden" not in str(raised.value)


def test_url_and_headers_have_400_characters_together() -> None:
    url, headers = "http://example.com/", {"X-One": "1" * 100, "X-Two": "2" * 100}
    room = LONGEST - len(url) - 210

    assert callback(url + "x" * room, headers).headers == headers
    with pytest.raises(Invalid, match="401") as raised:
        callback(url + "x" * (room + 1), headers)
    assert not isinstance(raised.value, TooLarge)
    with pytest.raises(Invalid, match="401"):
        callback(url + "x" * room, headers | {"X-Two": "2" * 101})
    with pytest.raises(Invalid, match="401"):
        callback(url + "x" * room, {"X-One": "1" * 100, "X-Twoo": "2" * 100})


def test_a_native_webhook_has_room_for_what_receivers_ask_for() -> None:
    url = "https://example.com/?signature=" + "x" * (LONGEST_URL - 31)
    token = {"Authorization": "Bearer " + "x" * (LONGEST_HEADERS - 20 - 2 * (MOST_HEADERS - 1))}
    others = {f"{number:02}": "" for number in range(MOST_HEADERS - 1)}

    assert native_callback(url, others, token) == Callback(url, {**others, **token})


@pytest.mark.parametrize(
    ("url", "headers", "secret", "field", "message"),
    [
        ("x" * LONGEST_URL, {}, {}, "url", "has 2068 characters, at most 2048"),
        ("", {f"{number}": "" for number in range(33)}, {}, "headers", "33 headers in all, at most 32"),
        ("", {"a": ""}, {f"{number}": "" for number in range(32)}, "secret_headers", "33 headers in all"),
        ("", {"a": "x" * 8192}, {}, "headers", "8193 characters of headers in all, at most 8192"),
        ("", {"a": "x" * 100}, {"b": "x" * 8100}, "secret_headers", "8202 characters"),
        ("", {}, {"Host": "x"}, "secret_headers", "Host is set by the gateway"),
        ("", {}, {"a": "1", "A": "2"}, "secret_headers", "A must be given once"),
        ("", {"a": "1"}, {"A": "2"}, "secret_headers", "A must not be in headers too"),
    ],
)
def test_what_is_refused_of_a_native_webhook_is_named(
    url: str, headers: dict[str, str], secret: dict[str, str], field: str, message: str
) -> None:
    with pytest.raises(Invalid, match=message) as raised:
        native_callback(f"https://example.com/{url}", headers, secret)

    assert [name for name, _ in raised.value.fields] == [field]


def test_headers_are_not_in_the_repr() -> None:
    assert "Zq7x" not in repr(callback("http://example.com/", {"Authorization": "Zq7x"}))
