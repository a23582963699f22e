"""The secret and the subprotocol of a handshake."""

import pytest

from shared.wire.pelion.handshake import bearer, secret_offered, subprotocol_response


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
def test_secret_in_the_authorization_header(authorization: str, secret: str | None) -> None:
    assert bearer(authorization) == secret


@pytest.mark.parametrize("offered", [["wss", "pelion_ak_1"], ["pelion_ak_1", "wss"], ["pelion_ak_1"]])
def test_secret_in_a_subprotocol_in_any_order(offered: list[str]) -> None:
    assert secret_offered({}, offered) == "ak_1"


@pytest.mark.parametrize("offered", [[], ["wss"], ["ak_1"], ["wss", "PELION_ak_1"], ["xpelion_ak_1"]])
def test_other_subprotocols_have_no_secret(offered: list[str]) -> None:
    assert secret_offered({}, offered) is None


def test_header_wins() -> None:
    assert secret_offered({"authorization": "Bearer ak_1"}, ["wss", "pelion_ak_2"]) == "ak_1"


@pytest.mark.parametrize("authorization", ["", "Basic dXNlcjpwYXNz", "Bearer "])
def test_subprotocol_counts_when_the_header_has_no_secret(authorization: str) -> None:
    assert secret_offered({"authorization": authorization}, ["wss", "pelion_ak_2"]) == "ak_2"


@pytest.mark.parametrize("offered", [["wss"], ["wss", "pelion_ak_1"], ["pelion_ak_1", "wss"], ["a", "wss"]])
def test_wss_is_returned_when_offered(offered: list[str]) -> None:
    assert subprotocol_response(offered) == "wss"


@pytest.mark.parametrize("offered", [[], ["pelion_ak_1"], ["mqtt"], ["WSS"]])
def test_the_secret_is_never_returned(offered: list[str]) -> None:
    assert subprotocol_response(offered) is None
