"""One handshake with a secret at a time, and never one that cannot begin again."""

from services.socket_edge.handshakes import Handshakes
from shared.model.api_keys import new_id, new_secret


def test_a_second_one_must_wait_until_the_first_is_over() -> None:
    handshakes, secret = Handshakes(), new_secret(new_id())
    first = handshakes.begin(secret)

    assert first is not None
    assert handshakes.begin(secret) is None
    first.over()
    assert handshakes.begin(secret) is not None


def test_saying_it_twice_does_not_end_somebody_elses() -> None:
    handshakes, secret = Handshakes(), new_secret(new_id())
    first = handshakes.begin(secret)
    assert first is not None
    first.over()
    second = handshakes.begin(secret)
    first.over()

    assert second is not None
    assert handshakes.begin(secret) is None


def test_other_secrets_do_not_wait_not_even_of_the_same_key() -> None:
    """Who knows no more than a key's id cannot keep its owner out."""
    handshakes, api_key_id = Handshakes(), new_id()

    for secret in (new_secret(api_key_id), new_secret(api_key_id), new_secret(new_id())):
        assert handshakes.begin(secret) is not None


def test_what_is_no_secret_is_refused_by_others() -> None:
    handshakes = Handshakes()

    for secret in (None, None, "", "", "ak_", "ak_"):
        assert handshakes.begin(secret) is not None
