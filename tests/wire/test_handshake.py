"""How a client gives its key when it opens a socket, and what it is answered."""

import pytest

from shared.wire.pelion.handshake import bearer, secret_offered, subprotocol_answer


@pytest.mark.parametrize(
    ("authorization", "secret"),
    [
        ("Bearer ak_1", "ak_1"),
        ("bearer ak_1", "ak_1"),
        ("BEARER ak_1", "ak_1"),
        ("bEaReR   ak_1  ", "ak_1"),
        ("", None),
        ("Bearer", None),
        ("Bearer ", None),
        ("Bearer    ", None),
        ("ak_1", None),
        ("Basic ak_1", None),
        ("Bearerak_1", None),
        ("NotBearer ak_1", None),
    ],
)
def test_the_secret_of_an_authorization_header(authorization: str, secret: str | None) -> None:
    assert bearer(authorization) == secret


@pytest.mark.parametrize("offered", [["wss", "pelion_ak_1"], ["pelion_ak_1", "wss"], ["pelion_ak_1"]])
def test_a_subprotocol_carries_the_secret_in_any_order(offered: list[str]) -> None:
    assert secret_offered({}, offered) == "ak_1"


@pytest.mark.parametrize("offered", [[], ["wss"], ["ak_1"], ["wss", "PELION_ak_1"], ["xpelion_ak_1"]])
def test_other_subprotocols_carry_none(offered: list[str]) -> None:
    assert secret_offered({}, offered) is None


def test_the_header_wins() -> None:
    assert secret_offered({"authorization": "Bearer ak_1"}, ["wss", "pelion_ak_2"]) == "ak_1"


@pytest.mark.parametrize("authorization", ["", "Basic dXNlcjpwYXNz", "Bearer "])
def test_a_header_without_a_secret_leaves_it_to_the_subprotocol(authorization: str) -> None:
    assert secret_offered({"authorization": authorization}, ["wss", "pelion_ak_2"]) == "ak_2"


@pytest.mark.parametrize("offered", [["wss"], ["wss", "pelion_ak_1"], ["pelion_ak_1", "wss"], ["a", "wss"]])
def test_wss_is_answered_when_offered(offered: list[str]) -> None:
    assert subprotocol_answer(offered) == "wss"


@pytest.mark.parametrize("offered", [[], ["pelion_ak_1"], ["mqtt"], ["WSS"]])
def test_the_key_is_never_answered(offered: list[str]) -> None:
    assert subprotocol_answer(offered) is None
