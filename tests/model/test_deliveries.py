"""What is kept of a failed attempt: bounded, and without secrets."""

import base64

import pytest

from shared.model.deliveries import EXCERPT_BYTES, HIDDEN, Excerpt, events_kept, excerpt, exchange

TOKEN = "t0ken-of-the-customer"


@pytest.mark.parametrize(
    "name",
    [
        "Authorization",
        "Proxy-Authorization",
        "cookie",
        "Set-Cookie",
        "webhook-signature",
        "X-Hub-Signature-256",
        "X-Api-Key",
        "apikey",
        "X-Auth-Token",
        "X-Access-Key",
        "X-Password",
        "client-secret",
        "Ocp-Apim-Subscription-Key",
    ],
)
def test_headers_whose_name_tells_a_secret_are_hidden(name: str) -> None:
    found = exchange({name: TOKEN}, b"", TOKEN.encode(), answer_headers={"x-echo": TOKEN, name: "other"})

    assert found.headers == {name: HIDDEN}
    assert found.answer_headers == {"x-echo": HIDDEN, name: HIDDEN}
    assert found.answer == Excerpt(HIDDEN)


@pytest.mark.parametrize(
    "name", ["Content-Type", "X-Origin", "webhook-id", "webhook-timestamp", "traceparent"]
)
def test_other_headers_are_shown(name: str) -> None:
    found = exchange({name: "value"}, b"", b"value")

    assert (found.headers, found.answer) == ({name: "value"}, Excerpt("value"))


def test_headers_that_the_webhook_calls_secret_are_hidden() -> None:
    found = exchange({"X-Tenant": TOKEN, "X-Other": "o"}, b"", TOKEN.encode(), secret_headers=["x-TENANT"])

    assert found.headers == {"X-Tenant": HIDDEN, "X-Other": "o"}
    assert TOKEN not in found.answer.text


@pytest.mark.parametrize(
    ("sent", "answer", "shown"),
    [
        (f"Bearer {TOKEN}", f"no such token: {TOKEN}!", f"no such token: {HIDDEN}!"),
        (f"Bearer {TOKEN}", f"got Bearer {TOKEN}", f"got {HIDDEN}"),
        (f"session={TOKEN}; b=c", f"{TOKEN} {TOKEN}", f"{HIDDEN} {HIDDEN}"),
        ('a"quoted\\secret', '{"got": "a\\"quoted\\\\secret"}', f'{{"got": "{HIDDEN}"}}'),
        ("short", "a short answer", "a short answer"),
    ],
)
def test_a_secret_in_an_answer_is_hidden(sent: str, answer: str, shown: str) -> None:
    assert exchange({"Authorization": sent}, b"", answer.encode()).answer == Excerpt(shown)


@pytest.mark.parametrize("kept", range(1, len(TOKEN)))
def test_the_beginning_of_a_secret_that_the_end_cuts_is_left_out(kept: int) -> None:
    answer = b"." * (EXCERPT_BYTES - kept) + TOKEN[:kept].encode()

    shown = exchange({"Authorization": TOKEN}, b"", answer).answer.text

    assert shown == "." * (EXCERPT_BYTES - kept)
    whole = b"." * (EXCERPT_BYTES - kept - 1) + TOKEN[:kept].encode()
    assert exchange({"Authorization": TOKEN}, b"", whole).answer.text == whole.decode()


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        (b"", Excerpt("")),
        (b"text", Excerpt("text")),
        ("é".encode() * 2000, Excerpt("é" * 1024)),
        (b"." + "é".encode() * 2000, Excerpt("." + "é" * 1023)),
        (b"..." + "🚲".encode() * 1000, Excerpt("..." + "🚲" * 511)),
        ("é".encode()[:1], Excerpt(base64.b64encode(b"\xc3").decode(), is_base64=True)),
        (b"\xff" * 5000, Excerpt(base64.b64encode(b"\xff" * 2048).decode(), is_base64=True)),
    ],
)
def test_an_excerpt_has_2_kib_of_text_or_base64(body: bytes, shown: Excerpt) -> None:
    assert excerpt(body) == shown


def test_what_is_kept_is_bounded() -> None:
    headers = {f"x-{n}": "v" * 300 for n in range(100)}

    found = exchange(headers, b"x" * 10**6, b"y" * 10**6, answer_headers=headers)

    assert sum(len(name) + len(value) for name, value in found.headers.items()) <= 4096
    assert found.answer_headers == found.headers
    assert (len(found.body.text), found.body_bytes, len(found.answer.text)) == (2048, 10**6, 2048)


def test_an_attempt_keeps_the_first_ids_of_its_events() -> None:
    few = [f"e-{n}" for n in range(100)]
    many = ["ü" * 255] * 100

    assert events_kept(few) == tuple(few)
    assert len(events_kept(many)) == 4096 // 511
