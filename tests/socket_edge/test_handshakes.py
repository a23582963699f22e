"""One handshake with a secret at a time, and never one that cannot begin again."""

import asyncio

import pytest

from services.socket_edge import edge as edge_module
from services.socket_edge.handshakes import Handshakes
from shared.model.api_keys import new_id, new_secret
from shared.model.errors import StoreUnavailable
from tests.socket_edge.conftest import edge_of
from tests.store.stores import Stores


def test_a_second_one_must_wait_until_the_first_is_over() -> None:
    handshakes, secret = Handshakes(), new_secret(new_id())

    with handshakes.begin(secret) as first:
        with handshakes.begin(secret) as second:
            assert (first, second) == (True, False)
        with handshakes.begin(secret) as third:
            assert not third, "the second one was not over: it never began"
    with handshakes.begin(secret) as fourth:
        assert fourth


def test_other_secrets_do_not_wait_not_even_of_the_same_key() -> None:
    """Knowing a key's id is not enough to keep its owner out."""
    handshakes, api_key_id = Handshakes(), new_id()

    with (
        handshakes.begin(new_secret(api_key_id)) as one,
        handshakes.begin(new_secret(api_key_id)) as other,
        handshakes.begin(new_secret(new_id())) as third,
    ):
        assert (one, other, third) == (True, True, True)


def test_a_malformed_secret_is_refused_for_that_and_not_here() -> None:
    handshakes = Handshakes()

    for secret in (None, "", "ak_"):
        with handshakes.begin(secret) as one, handshakes.begin(secret) as other:
            assert (one, other) == (True, True)


async def test_a_client_waits_no_longer_than_10_seconds_for_its_authentication(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many reads its credential takes; it gets a 503."""
    monkeypatch.setattr(edge_module, "AUTHENTICATION_S", 0.01)
    edge = edge_of(stores)

    async def find() -> None:
        await asyncio.Event().wait()

    with pytest.raises(StoreUnavailable):
        await edge.look_up("a token", "192.0.2.1", find)
